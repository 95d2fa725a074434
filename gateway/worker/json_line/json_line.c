/* A line of the access log as JSON, of values that need no escape: nearly every line.
 *
 * write(buffer, at, ..., end) takes the values of VALUES in their order and writes the line into a bytearray, from
 * `at` on; it returns the place behind it. `at` itself: a text holds what may not stand in a string as it is, or a
 * number is out of range, or there may not be room for all of it. Then it is written with care, in Python; the two
 * are held against each other by a property test.
 *
 * A text is copied without a look, and looked at then, sixteen bytes at a time.
 *
 * Bounds: each text is counted off the room there is before it is copied, and all else has a size that FRAME covers.
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

#define DIGITS 21 /* of 2^63, and a point */
#define WIDTH 16  /* of Bytes: the last ones of a text are filled up */
#define FRAME (COUNT * (BEFORE + DIGITS) + WIDTH) /* all of a line but its texts */

typedef unsigned char Bytes __attribute__((vector_size(WIDTH)));
typedef signed char Signed __attribute__((vector_size(WIDTH))); /* of these alone a processor tells which is more */

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

/* Copy a text, and blanks behind it. Returns what is not zero somewhere unless all of it is of ' ' … '~', without
 * '"' and '\\'. */
static Bytes copy(char *to, Text text)
{
    Bytes unsafe = {0};
    memcpy(to, text.data, (size_t)text.size);
    memset(to + text.size, ' ', WIDTH);
    for (const char *at = to; at < to + text.size; at += WIDTH) {
        Bytes bytes;
        memcpy(&bytes, at, WIDTH);
        unsafe |= (Bytes)((Signed)(bytes - ' ' + 128) > '~' - ' ' - 128);
        unsafe |= (Bytes)(bytes == '"') | (Bytes)(bytes == '\\');
    }
    return unsafe;
}

static int is_zero(Bytes bytes)
{
    uint64_t halves[2];
    memcpy(halves, &bytes, sizeof halves);
    return !(halves[0] | halves[1]);
}

static const char PAIRS[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
                            "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
                            "8081828384858687888990919293949596979899";

/* Write the last `count` digits of a number, two at a time. Returns the place behind them. */
static char *fixed(char *to, uint64_t number, int count)
{
    int at = count;
    for (; at > 1; number /= 100)
        memcpy(to + (at -= 2), PAIRS + number % 100 * 2, 2);
    if (at)
        *to = (char)('0' + number % 10);
    return to + count;
}

static char *digits(char *to, uint64_t number)
{
    int count = 1;
    for (uint64_t bound = 10; number >= bound; bound *= 10) /* 2^63 < 10^19 < 2^64 */
        count++;
    return fixed(to, number, count);
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

/* Write the line. room: for its texts. Returns the place behind it; `line` itself: with care, please. */
static char *write_line(char *line, Py_ssize_t room, PyObject *const *values, Text end)
{
    Bytes unsafe = {0};
    char *to = line;
    for (int place = 0; place < COUNT; place++) {
        enum Kind kind = VALUES[place].kind;
        memcpy(to, VALUES[place].before, BEFORE);
        to += VALUES[place].size;
        if (kind == TEXT) {
            Text text = text_of(values[place]);
            room -= text.size;
            if (!text.data || room < 0)
                return line;
            unsafe |= copy(to, text);
            to += text.size;
        } else if (!(to = put(to, kind, values[place]))) {
            PyErr_Clear(); /* an int beyond 64 bits */
            return line;
        }
    }
    if (end.size > room || !is_zero(unsafe))
        return line;
    *to++ = '"';
    memcpy(to, end.data, (size_t)end.size);
    return to + end.size;
}

static PyObject *write_json(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != COUNT + 3 || !PyByteArray_CheckExact(arguments[0]) || !PyBytes_CheckExact(arguments[count - 1])) {
        PyErr_Format(PyExc_TypeError, "write takes a bytearray, a place in it, %zd values and bytes", COUNT);
        return NULL;
    }
    Py_ssize_t at = PyLong_AsSsize_t(arguments[1]);
    if (PyErr_Occurred())
        return NULL;
    Py_ssize_t room = PyByteArray_GET_SIZE(arguments[0]) - FRAME;
    if (at < 0 || at > room)
        return Py_NewRef(arguments[1]);
    char *begin = PyByteArray_AS_STRING(arguments[0]);
    Text end = {PyBytes_AS_STRING(arguments[count - 1]), PyBytes_GET_SIZE(arguments[count - 1])};
    return PyLong_FromSsize_t(write_line(begin + at, room - at, arguments + 2, end) - begin);
}

static PyMethodDef FUNCTIONS[] = {
    {"write", (PyCFunction)(void (*)(void))write_json, METH_FASTCALL, NULL},
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
