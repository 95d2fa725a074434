/* A line of the access log as JSON, of values that need no escape: nearly every line.
 *
 * append(buffer, ...) takes the values of VALUES in their order and adds the line to a bytearray. False, and
 * nothing is added: a text holds what may not stand in a string as it is, or a number is out of range, or all of
 * it is too long. Then it is written with care, in Python; the two are held against each other by a property test.
 *
 * Bounds: texts are summed up before anything is written, and all else has a size that ROOM covers.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

enum Kind {
    TEXT,   /* str or bytes */
    NUMBER, /* an int, not negative */
    MICROS, /* six digits */
    MILLIS, /* microseconds, shown as milliseconds */
    RAW,    /* bytes that are no text */
};

#define BEHIND(text) sizeof text - 1, text
#define BEFORE 24 /* copied whole, because that is quicker than to count */
static const struct {
    enum Kind kind;
    Py_ssize_t size;
    char before[BEFORE]; /* what stands in front of it */
} VALUES[] = {
    {TEXT, BEHIND("{\"ts\":\"")},
    {MICROS, BEHIND(".")},
    {TEXT, BEHIND("Z\",\"request_id\":\"")},
    {TEXT, BEHIND("\",\"trace_id\":\"")},
    {TEXT, BEHIND("\",\"client\":\"")},
    {TEXT, BEHIND("\",\"peer\":\"")},
    {TEXT, BEHIND("\",\"method\":\"")},
    {TEXT, BEHIND("\",\"host\":\"")},
    {TEXT, BEHIND("\",\"path\":\"")},
    {TEXT, BEHIND("\",\"proto\":\"")},
    {NUMBER, BEHIND("\",\"status\":")},
    {TEXT, BEHIND(",\"service\":\"")},
    {TEXT, BEHIND("\",\"version\":\"")},
    {TEXT, BEHIND("\",\"endpoint\":\"")},
    {NUMBER, BEHIND("\",\"attempts\":")},
    {MILLIS, BEHIND(",\"duration_ms\":")},
    {MILLIS, BEHIND(",\"upstream_ms\":")},
    {MILLIS, BEHIND(",\"gateway_ms\":")},
    {NUMBER, BEHIND(",\"bytes_in\":")},
    {NUMBER, BEHIND(",\"bytes_out\":")},
    {TEXT, BEHIND(",\"user_agent\":\"")},
    {RAW, BEHIND("\"")},
};
#define COUNT ((Py_ssize_t)(sizeof VALUES / sizeof VALUES[0]))

#define LONGEST 8192 /* bytes of a line's texts together */
#define DIGITS 21    /* of 2^63, and a point */
#define ROOM (COUNT * (BEFORE + DIGITS))
#define ONES 0x0101010101010101u
#define HIGH 0x8080808080808080u

typedef struct {
    const char *data;
    Py_ssize_t size;
} Text;

/* The text of a str or bytes object; no data: it is neither, or not ASCII. */
static Text text_of(PyObject *value)
{
    if (PyBytes_CheckExact(value))
        return (Text){PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)};
    if (PyUnicode_CheckExact(value) && PyUnicode_IS_COMPACT_ASCII(value))
        return (Text){(const char *)PyUnicode_1BYTE_DATA(value), PyUnicode_GET_LENGTH(value)};
    return (Text){NULL, 0};
}

/* Nonzero if a byte is none of ' ' … '~', or is '"' or '\'. Each term is exact in whether there is such a byte. */
static uint64_t unsafe_8(uint64_t bytes)
{
    uint64_t quote = bytes ^ ONES * '"', slash = bytes ^ ONES * '\\';
    uint64_t low = (bytes - ONES * ' ') & ~bytes, high = bytes | (bytes + ONES);
    return (low | high | ((quote - ONES) & ~quote) | ((slash - ONES) & ~slash)) & HIGH;
}

static uint64_t load_4(const char *from)
{
    uint32_t bytes;
    memcpy(&bytes, from, 4);
    return bytes;
}

/* Copy a text, and tell whether it is unsafe. The last eight, or four, bytes may overlap with those before. */
static uint64_t copy(char *to, Text text)
{
    const char *from = text.data, *end = text.data + text.size;
    uint64_t unsafe = 0, bytes;
    if (text.size < 4) {
        for (bytes = ONES * ' '; from < end; bytes = bytes << 8 | (unsigned char)*from++)
            *to++ = *from;
        return unsafe_8(bytes);
    }
    if (text.size < 8) {
        memcpy(to, from, 4);
        memcpy(to + text.size - 4, end - 4, 4);
        return unsafe_8(load_4(from) << 32 | load_4(end - 4));
    }
    for (; from + 8 < end; from += 8, to += 8) {
        memcpy(&bytes, from, 8);
        memcpy(to, &bytes, 8);
        unsafe |= unsafe_8(bytes);
    }
    memcpy(&bytes, end - 8, 8);
    memcpy(to + (end - from) - 8, &bytes, 8);
    return unsafe | unsafe_8(bytes);
}

static char *digits(char *to, uint64_t number)
{
    if (number < 10) {
        *to = (char)('0' + number);
        return to + 1;
    }
    char reversed[20];
    int count = 0;
    do
        reversed[count++] = (char)('0' + number % 10);
    while (number /= 10);
    while (count)
        *to++ = reversed[--count];
    return to;
}

static char *fixed(char *to, uint64_t number, int count)
{
    for (int at = count; at--; number /= 10)
        to[at] = (char)('0' + number % 10);
    return to + count;
}

/* Write a number, behind what stands in front of it. Returns the place behind it; NULL: it is none of ours. */
static char *put(char *to, enum Kind kind, PyObject *value)
{
    int64_t number = PyLong_AsLongLong(value);
    if (number < 0)
        return NULL;
    if (kind == MICROS)
        return fixed(to, (uint64_t)number, 6);
    if (kind == NUMBER)
        return digits(to, (uint64_t)number);
    to = digits(to, (uint64_t)number / 1000);
    *to++ = '.';
    return fixed(to, (uint64_t)number % 1000, 3);
}

/* Write the line. Returns its size; 0: with care, please. */
static Py_ssize_t write_line(char *line, PyObject *const *values, const Text *texts)
{
    uint64_t unsafe = 0;
    char *to = line;
    for (int place = 0; place < COUNT; place++) {
        enum Kind kind = VALUES[place].kind;
        memcpy(to, VALUES[place].before, BEFORE);
        to += VALUES[place].size;
        if (kind == TEXT || kind == RAW) {
            uint64_t found = copy(to, texts[place]);
            unsafe |= kind == TEXT ? found : 0;
            to += texts[place].size;
        } else if (!(to = put(to, kind, values[place]))) {
            PyErr_Clear(); /* an int beyond 64 bits */
            return 0;
        }
    }
    return unsafe ? 0 : to - line;
}

static PyObject *append(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    char line[LONGEST + ROOM];
    Text texts[sizeof VALUES / sizeof VALUES[0]];
    Py_ssize_t size = 0;
    if (count != COUNT + 1 || !PyByteArray_CheckExact(arguments[0])) {
        PyErr_Format(PyExc_TypeError, "append takes a bytearray and %zd values", COUNT);
        return NULL;
    }
    PyObject *buffer = arguments[0], *const *values = arguments + 1;
    for (int place = 0; place < COUNT; place++)
        if (VALUES[place].kind == TEXT || VALUES[place].kind == RAW) {
            texts[place] = text_of(values[place]);
            size += texts[place].size;
            if (!texts[place].data || size > LONGEST)
                Py_RETURN_FALSE;
        }
    size = write_line(line, values, texts);
    if (!size)
        Py_RETURN_FALSE;
    Py_ssize_t before = PyByteArray_GET_SIZE(buffer);
    if (PyByteArray_Resize(buffer, before + size) < 0)
        return NULL;
    memcpy(PyByteArray_AS_STRING(buffer) + before, line, (size_t)size);
    Py_RETURN_TRUE;
}

static PyMethodDef FUNCTIONS[] = {
    {"append", (PyCFunction)(void (*)(void))append, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "native", NULL, -1, FUNCTIONS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_native(void)
{
    PyObject *module = PyModule_Create(&MODULE);
    if (module && PyModule_AddObject(module, "SOURCE", PyLong_FromUnsignedLong(SOURCE_SUM)) < 0)
        Py_CLEAR(module);
    return module;
}
