/* A line of the access log as JSON, of values that need no escape: nearly every line.
 *
 * write(buffer, at, ..., end) takes the values of VALUES in their order and writes the line into a bytearray, from
 * `at` on; it returns the place behind it. `at` itself: a text holds what may not stand in a string as it is, or a
 * number is out of range, or there may not be room for all of it. Then it is written with care, in Python; the two
 * are held against each other by a property test.
 *
 * Texts are copied without a look; the whole line is looked at then, sixteen bytes at a time: it may hold no more
 * quotation marks than its frame does.
 *
 * Bounds: texts are summed up before anything is written, and all else has a size that FRAME covers.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

enum Kind {
    TEXT,   /* str or bytes */
    NUMBER, /* an int, not negative */
    MICROS, /* six digits */
    MILLIS, /* microseconds, shown as milliseconds */
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
};
#define COUNT ((Py_ssize_t)(sizeof VALUES / sizeof VALUES[0]))
static int QUOTES; /* of a line's frame */

#define DIGITS 21 /* of 2^63, and a point */
#define WIDTH 16  /* of Bytes: the last of a line may be filled up */
#define FRAME (COUNT * (BEFORE + DIGITS) + WIDTH)

typedef signed char Bytes __attribute__((vector_size(WIDTH))); /* those beyond ASCII are negative */

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

/* Whether all from `at` to `end`, and up to WIDTH behind it, is of ' ' … '~', without '\\' and with QUOTES '"'. */
static int is_safe(const char *at, const char *end)
{
    Bytes unsafe = {0};
    int quotes = 0;
    while (at < end) {
        Bytes counts = {0}; /* less than nothing; of so many at once as a byte can count */
        for (int rounds = 0; rounds < 127 && at < end; rounds++, at += WIDTH) {
            Bytes bytes;
            memcpy(&bytes, at, WIDTH);
            unsafe |= (bytes < ' ') | (bytes == 127) | (bytes == '\\');
            counts += bytes == '"';
        }
        for (int place = 0; place < WIDTH; place++)
            quotes -= counts[place];
    }
    for (int place = 0; place < WIDTH; place++)
        if (unsafe[place])
            return 0;
    return quotes == QUOTES;
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

static char *copy(char *to, Text text)
{
    memcpy(to, text.data, (size_t)text.size);
    return to + text.size;
}

/* Write the line. Returns the place behind it; `line` itself: with care, please. */
static char *write_line(char *line, PyObject *const *values, const Text *texts, Text end)
{
    char *to = line;
    for (int place = 0; place < COUNT; place++) {
        enum Kind kind = VALUES[place].kind;
        memcpy(to, VALUES[place].before, BEFORE);
        to += VALUES[place].size;
        if (kind == TEXT) {
            to = copy(to, texts[place]);
        } else if (!(to = put(to, kind, values[place]))) {
            PyErr_Clear(); /* an int beyond 64 bits */
            return line;
        }
    }
    *to++ = '"';
    memset(to, ' ', WIDTH);
    return is_safe(line, to) ? copy(to, end) : line;
}

static PyObject *write_json(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    Text texts[sizeof VALUES / sizeof VALUES[0]];
    if (count != COUNT + 3 || !PyByteArray_CheckExact(arguments[0])) {
        PyErr_Format(PyExc_TypeError, "write takes a bytearray, a place in it, %zd values and an end", COUNT);
        return NULL;
    }
    PyObject *buffer = arguments[0], *const *values = arguments + 2;
    Py_ssize_t at = PyLong_AsSsize_t(arguments[1]);
    if (PyErr_Occurred())
        return NULL;
    Text end = text_of(values[COUNT]);
    Py_ssize_t size = FRAME + end.size;
    int are_texts = end.data != NULL;
    for (int place = 0; place < COUNT; place++)
        if (VALUES[place].kind == TEXT) {
            texts[place] = text_of(values[place]);
            size += texts[place].size;
            are_texts &= texts[place].data != NULL;
        }
    if (!are_texts || at < 0 || size > PyByteArray_GET_SIZE(buffer) - at)
        return Py_NewRef(arguments[1]);
    char *begin = PyByteArray_AS_STRING(buffer);
    return PyLong_FromSsize_t(write_line(begin + at, values, texts, end) - begin);
}

static PyMethodDef FUNCTIONS[] = {
    {"write", (PyCFunction)(void (*)(void))write_json, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "native", NULL, -1, FUNCTIONS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_native(void)
{
    QUOTES = 1; /* behind the last text */
    for (int place = 0; place < COUNT; place++)
        for (const char *at = VALUES[place].before; *at; at++)
            QUOTES += *at == '"';
    PyObject *module = PyModule_Create(&MODULE);
    if (module && PyModule_AddObject(module, "SOURCE", PyLong_FromUnsignedLong(SOURCE_SUM)) < 0)
        Py_CLEAR(module);
    return module;
}
