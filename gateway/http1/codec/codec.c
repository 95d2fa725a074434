/* The head codec: heads as most peers send them, read in one pass (RFC 9112 §2 to §6).
 *
 * A function of bytes alone: what it returns is what the careful reader (request.py, response.py) would find in
 * the same bytes. It accepts a strict subset of what that one does, and answers None to the rest: it refuses
 * nothing itself, and decides nothing: framing, hosts and limits are judged in Python, for both readers alike.
 * A field is taken in the form in which it is passed on, and no other: `Name: value`, one space in front of the
 * value and no blank behind it.
 *
 * Bounds by construction. Input is a bytes object, which ends in a NUL that does not count. Every scan goes on
 * while a byte is of a class, every comparison while bytes are equal, and NUL is in no class and equals nothing
 * sought: none can pass the end. Eight bytes are looked at together only in front of it. Sizes of output are summed
 * up before it is allocated.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>

typedef const unsigned char *At; /* a place in the input */

enum { TOKEN = 1, VALUE = 2, TARGET = 4, UNRESERVED = 8, LABEL = 16, DECIMAL = 32, TRACE = 64 };
static unsigned char CLASS[256]; /* what a byte may be part of */
static unsigned char SAME[256];  /* a byte itself */
static unsigned char LOWER[256]; /* it in lower case */
static unsigned char PLAIN[256]; /* the same, marks as `-`: what services in the manner of CGI take a name for */
static signed char DIGIT[256];   /* its value as a hexadecimal digit, or -1 */

#define MAX_FIELDS 128
#define MAX_DIGITS 18     /* under 2^63: no number overflows */
#define MAX_AUTHORITY 261 /* as in target.py */

/* How a field is treated. TOLD: its value is. USUAL: nothing follows from it but what it says itself. */
enum { TOLD = 1, PASSED_ON = 2, USUAL = 4 };
/* What is found by name again. */
enum { NONE, LENGTH, CODING, CONNECTION, HOST, PARENT, DATE, FOUND };

typedef struct {
    const char *text; /* in lower case */
    Py_ssize_t size;
    int how, role;
    uint64_t bit; /* its own; 0: there may be several of the name */
    PyObject *key;
} Name;

static const Name KEPT = {.how = PASSED_ON | USUAL}, DROPPED = {.how = USUAL}; /* any other */

#define LONGEST 25
typedef struct {
    const Name *posing;             /* what a name is that poses as one of these, with other marks */
    Name names[24];                 /* of fields acted on, in order of size; the last is none */
    const Name *first[LONGEST + 1]; /* of each size */
} Table;

#define NAME(word, ...) {.text = word, .size = sizeof word - 1, .how = __VA_ARGS__}

static Table REQUEST = {.posing = &DROPPED, .names = {
    NAME("te", TOLD), NAME("via", TOLD | USUAL), NAME("host", TOLD | USUAL, HOST), NAME("expect", TOLD),
    NAME("trailer", TOLD), NAME("upgrade", TOLD), NAME("cdn-loop", TOLD), NAME("forwarded", TOLD | USUAL),
    NAME("connection", TOLD | USUAL, CONNECTION), NAME("keep-alive", TOLD), NAME("tracestate", TOLD | USUAL),
    NAME("traceparent", TOLD | USUAL, PARENT), NAME("max-forwards", TOLD), NAME("x-request-id", TOLD | USUAL),
    NAME("content-length", TOLD | USUAL, LENGTH), NAME("http2-settings", TOLD),
    NAME("x-forwarded-for", TOLD | USUAL), NAME("proxy-connection", TOLD),
    NAME("x-forwarded-host", TOLD | USUAL), NAME("x-forwarded-port", TOLD | USUAL),
    NAME("transfer-encoding", TOLD, CODING), NAME("x-forwarded-proto", TOLD | USUAL),
    NAME("proxy-authorization", TOLD),
}};
static Table RESPONSE = {.posing = &KEPT, .names = {
    NAME("te", TOLD), NAME("date", PASSED_ON, DATE), NAME("trailer", TOLD), NAME("upgrade", TOLD),
    NAME("x-outcome", TOLD), NAME("connection", 0, CONNECTION), NAME("keep-alive", TOLD),
    NAME("content-length", PASSED_ON, LENGTH), NAME("proxy-connection", TOLD),
    NAME("transfer-encoding", 0, CODING), NAME("proxy-authenticate", TOLD),
    NAME("proxy-authentication-info", TOLD),
}};

typedef struct {
    At name, colon, value, end;
    const Name *as;
} Field;

typedef struct {
    Py_ssize_t bytes;        /* of all of it */
    Py_ssize_t length;       /* of the body, or */
    Py_ssize_t block_bytes;  /* of the lines passed on */
    uint64_t marks;          /* of the names kept: see mark_of */
    int has_claims;          /* one of these says what only a trusted proxy may say */
    int is_unusual;          /* not all fields are USUAL, or the connection is to do more than stay */
    const Field *found[FOUND];
    int count;
    Field fields[MAX_FIELDS];
} Head;

enum { CHUNKED = -1, UNSAID = -2, OTHER = -3 };

/* --- words ---------------------------------------------------------------------------------------------- */

/* The place behind `text`, if the input, seen through `map`, goes on with it; else NULL. */
static At behind(At at, const unsigned char *map, const char *text)
{
    for (; *text; at++, text++)
        if (map[*at] != (unsigned char)*text)
            return NULL;
    return at;
}

static At skip(At at, int class)
{
    while (CLASS[*at] & class)
        at++;
    return at;
}

/* The same for VALUE: eight bytes at a time while none of them is a control character. */
static At skip_value(At at, At end)
{
    const uint64_t ones = 0x0101010101010101, tops = ones << 7;
    for (; end - at >= 8; at += 8) {
        uint64_t word, delete;
        memcpy(&word, at, 8);
        delete = word ^ ones * 127;
        if ((((word - ones * 32) & ~word) | ((delete - ones) & ~delete)) & tops)
            break;
    }
    return skip(at, VALUE);
}

/* The number that is written from `at` to `end`; OTHER: not in digits alone, or in too many. */
static Py_ssize_t number(At at, At end)
{
    if (at == end || end - at > MAX_DIGITS || skip(at, DECIMAL) != end)
        return OTHER;
    Py_ssize_t number = 0;
    for (; at < end; at++)
        number = number * 10 + (*at - '0');
    return number;
}

/* --- fields (RFC 9112 §5) ------------------------------------------------------------------------------- */

/* Read `name: value` and its end. Returns the place behind it, NULL for any other form. */
static At read_field(At at, At data_end, Field *field)
{
    field->name = at;
    field->colon = at = skip(at, TOKEN);
    if (at == field->name || at[0] != ':' || at[1] != ' ')
        return NULL;
    field->value = at + 2;
    field->end = at = skip_value(field->value, data_end);
    if (at > field->value && (*field->value <= ' ' || at[-1] <= ' ')) /* a blank */
        return NULL;
    return behind(at, SAME, "\r\n");
}

/* What a field is by its name. In a request X_Forwarded_For is neither acted on nor passed on. */
static const Name *name_of(const Field *field, const Table *table)
{
    const Py_ssize_t size = field->colon - field->name;
    for (const Name *name = table->first[size <= LONGEST ? size : 0]; name->size == size; name++)
        if (behind(field->name, PLAIN, name->text) == field->colon)
            return behind(field->name, LOWER, name->text) ? name : table->posing;
    return &KEPT;
}

/* The bit that stands for a name, and for a few others: a head without it holds no such field. */
static uint64_t mark_of(const Field *field)
{
    return (uint64_t)1 << ((field->colon - field->name) * 3 + PLAIN[field->name[0]] + PLAIN[field->colon[-1]]) % 61;
}

/* Whether a request's field is for proxies alone, or a setting of a CGI service's own (CVE-2016-5385). */
static int is_for_proxies(const Field *field)
{
    At rest = behind(field->name, LOWER, "proxy");
    return rest && (*rest == ':' || *rest == '-');
}

/* X-Forwarded-… and X-Real-IP, however spelled; `X-Forwarded-` with nothing behind it too. */
static int is_claim(const Field *field)
{
    return behind(field->name, PLAIN, "x-forwarded-") || behind(field->name, PLAIN, "x-real-ip") == field->colon;
}

/* The length of the body as the head says it (RFC 9112 §6). OTHER: not as simple as it can be, with one length in
 * digits, or `chunked` alone, or neither. */
static Py_ssize_t length_of(const Head *head)
{
    const Field *length = head->found[LENGTH], *coding = head->found[CODING];
    if (coding)
        return !length && behind(coding->value, LOWER, "chunked") == coding->end ? CHUNKED : OTHER;
    return length ? number(length->value, length->end) : UNSAID;
}

/* Read fields from `at` to the empty line. Returns 0 for a head that is not whole, not in this form, or holds a
 * field twice that is acted on: several of a name are another's to join. */
static int read_fields(At at, PyObject *data, Head *head, const Table *table)
{
    const At begin = (At)PyBytes_AS_STRING(data), data_end = begin + PyBytes_GET_SIZE(data);
    uint64_t seen = 0;
    memset(head, 0, offsetof(Head, fields));
    while (*at != '\r') {
        Field *field = &head->fields[head->count];
        if (head->count++ == MAX_FIELDS || !(at = read_field(at, data_end, field)))
            return 0;
        const Name *as = name_of(field, table);
        if (as == &KEPT && table == &REQUEST) {
            if (is_for_proxies(field)) {
                as = &DROPPED;
            } else {
                head->has_claims |= is_claim(field);
                head->marks |= mark_of(field);
            }
        }
        if (seen & as->bit)
            return 0;
        seen |= as->bit;
        head->found[as->role] = field;
        head->is_unusual |= !(as->how & USUAL);
        if (as->how & PASSED_ON)
            head->block_bytes += at - field->name;
        field->as = as;
    }
    head->bytes = at + 2 - begin;
    head->length = length_of(head);
    const Field *connection = head->found[CONNECTION];
    if (connection && behind(connection->value, SAME, "keep-alive") == connection->end)
        head->found[CONNECTION] = NULL; /* it says what holds without it */
    head->is_unusual |= head->found[CONNECTION] != NULL;
    return at[1] == '\n' && head->length != OTHER;
}

/* Whether there is a traceparent of version 00 (https://www.w3.org/TR/trace-context/ §3.2). */
static int is_traceparent(const Field *field)
{
    At at = field ? field->value : NULL;
    if (!at || field->end - at != 55 || memcmp(at, "00-", 3) || at[35] != '-' || at[52] != '-')
        return 0;
    return skip(at + 3, TRACE) == at + 35 && skip(at + 36, TRACE) == at + 52 && skip(at + 53, TRACE) == at + 55;
}

/* --- what is made of them ------------------------------------------------------------------------------- */

static PyObject *slice(At from, At to)
{
    return PyBytes_FromStringAndSize((const char *)from, to - from);
}

/* Lower-case name -> value of the fields that are TOLD. */
static PyObject *special_of(const Head *head)
{
    PyObject *special = PyDict_New();
    for (const Field *field = head->fields; special && field < head->fields + head->count; field++)
        if (field->as->how & TOLD) {
            PyObject *value = slice(field->value, field->end);
            if (!value || PyDict_SetItem(special, field->as->key, value) < 0)
                Py_CLEAR(special);
            Py_XDECREF(value);
        }
    return special;
}

/* The lines that are passed on. */
static PyObject *block_of(const Head *head)
{
    PyObject *block = PyBytes_FromStringAndSize(NULL, head->block_bytes);
    char *out = block ? PyBytes_AS_STRING(block) : NULL;
    for (const Field *field = head->fields; block && field < head->fields + head->count; field++)
        if (field->as->how & PASSED_ON) {
            size_t size = (size_t)(field->end + 2 - field->name);
            memcpy(out, field->name, size);
            out += size;
        }
    return block;
}

/* A tuple of `count` objects, which it takes; NULL if one of them is. Py_BuildValue costs four times as much. */
static PyObject *tuple_of(PyObject **items, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    int is_whole = tuple != NULL;
    for (Py_ssize_t k = 0; k < count; k++) {
        is_whole &= items[k] != NULL;
        if (tuple)
            PyTuple_SET_ITEM(tuple, k, items[k]);
        else
            Py_XDECREF(items[k]);
    }
    if (!is_whole)
        Py_CLEAR(tuple);
    return tuple;
}
#define TUPLE_OF(...) tuple_of((PyObject *[]){__VA_ARGS__}, sizeof((PyObject *[]){__VA_ARGS__}) / sizeof(PyObject *))

/* The bytes object that is an argument; NULL, with an exception, for any other. */
static At bytes_of(PyObject *argument)
{
    if (PyBytes_CheckExact(argument))
        return (At)PyBytes_AS_STRING(argument);
    PyErr_SetString(PyExc_TypeError, "takes bytes");
    return NULL;
}

/* --- the request line (RFC 9112 §3) --------------------------------------------------------------------- */

/* The host of a Host field, if it is its own normal form, and without a port; else None, and target.py judges it. */
static PyObject *host_of(const Field *field)
{
    if (!field || field->end - field->value > MAX_AUTHORITY)
        Py_RETURN_NONE;
    At end = skip(field->value, LABEL);
    while (*end == '.' && CLASS[end[1]] & LABEL)
        end = skip(end + 1, LABEL);
    if (end != field->end || end == field->value)
        Py_RETURN_NONE;
    return PyUnicode_DecodeASCII((const char *)field->value, end - field->value, NULL);
}

/* Whether a path is its own normal form: nothing escaped, no empty segment, no dot where a segment begins. */
static int is_normal(At at, At end)
{
    for (; at < end; at++)
        if (*at == '%' || *at == '\\' || (*at == '/' && (at[1] == '/' || at[1] == '.')))
            return 0;
    return 1;
}

/* The normal form of a path (RFC 3986 §6.2.2; target.py has the policy). NULL without an exception: it holds a
 * dot where a segment begins, behind an escaped slash too, or what must be refused. */
static PyObject *normal_path(At at, At end)
{
    PyObject *path = PyBytes_FromStringAndSize(NULL, end - at); /* it is never longer than what came */
    if (!path)
        return NULL;
    char *begin = PyBytes_AS_STRING(path), *out = begin;
    int begins = 0; /* a segment, or what some server may take for one */
    while (at < end) {
        unsigned char byte = *at;
        int step = 1;
        if (byte == '%') {
            if (DIGIT[at[1]] < 0 || DIGIT[at[2]] < 0)
                goto other;
            byte = (unsigned char)(DIGIT[at[1]] << 4 | DIGIT[at[2]]);
            step = 3;
        }
        if (!byte || (byte == '\\' && step == 1) || (byte == '.' && begins))
            goto other;
        if (step == 3 && !(CLASS[byte] & UNRESERVED)) {
            *out++ = '%';
            *out++ = "0123456789ABCDEF"[byte >> 4];
            *out++ = "0123456789ABCDEF"[byte & 15];
        } else if (byte != '/' || out == begin || out[-1] != '/') {
            *out++ = (char)byte;
        }
        begins = byte == '/' || byte == '\\';
        at += step;
    }
    _PyBytes_Resize(&path, out - begin);
    return path;
other:
    Py_DECREF(path);
    return NULL;
}

/* read_request(data) -> (end, fields, method, target, path, raw_path, query, host, length, special, block,
 * has_claims, is_usual, marks, is_traced), or None. */
static PyObject *read_request(PyObject *Py_UNUSED(module), PyObject *data)
{
    Head head;
    At begin = bytes_of(data);
    if (!begin)
        return NULL;
    At space = skip(begin, TOKEN), target = space + 1;
    if (space == begin || *space != ' ' || *target != '/' || behind(begin, SAME, "CONNECT") == space)
        Py_RETURN_NONE;
    At end = skip(target, TARGET), fields = behind(end, SAME, " HTTP/1.1\r\n"), path_end = target;
    if (!fields || !read_fields(fields, data, &head, &REQUEST))
        Py_RETURN_NONE;
    while (path_end < end && *path_end != '?')
        path_end++;

    PyObject *whole = slice(target, end);
    PyObject *raw = path_end == end ? Py_XNewRef(whole) : slice(target, path_end);
    PyObject *path = is_normal(target, path_end) ? Py_XNewRef(raw) : normal_path(target, path_end);
    if (!path && !PyErr_Occurred()) {
        Py_XDECREF(whole);
        Py_XDECREF(raw);
        Py_RETURN_NONE;
    }
    return TUPLE_OF(PyLong_FromSsize_t(head.bytes), PyLong_FromLong(head.count), slice(begin, space), whole, path,
                    raw, slice(path_end, end), host_of(head.found[HOST]),
                    PyLong_FromSsize_t(head.length == UNSAID ? 0 : head.length), special_of(&head),
                    block_of(&head), PyBool_FromLong(head.has_claims),
                    PyBool_FromLong(!head.is_unusual),
                    PyLong_FromUnsignedLongLong(head.marks),
                    PyBool_FromLong(is_traceparent(head.found[PARENT])));
}

/* --- the status line (RFC 9112 §4) ---------------------------------------------------------------------- */

/* read_response(data) -> (end, status, length, connection, has_date, special, block), or None. Of HTTP/1.1 and final
 * responses only. */
static PyObject *read_response(PyObject *Py_UNUSED(module), PyObject *data)
{
    Head head;
    At begin = bytes_of(data), code = begin ? behind(begin, SAME, "HTTP/1.1 ") : NULL;
    if (!begin)
        return NULL;
    if (!code)
        Py_RETURN_NONE;
    At end = skip(code, DECIMAL);
    long status = end - code == 3 ? (long)number(code, end) : OTHER;
    if (*end == ' ')
        end = skip(end, VALUE); /* the reason phrase means nothing */
    At fields = behind(end, SAME, "\r\n");
    if (status < 200 || !fields || !read_fields(fields, data, &head, &RESPONSE))
        Py_RETURN_NONE;
    const Field *connection = head.found[CONNECTION];
    return TUPLE_OF(PyLong_FromSsize_t(head.bytes), PyLong_FromLong(status),
                    PyLong_FromSsize_t(head.length),
                    connection ? slice(connection->value, connection->end) : Py_NewRef(Py_None),
                    PyBool_FromLong(head.found[DATE] != NULL), special_of(&head), block_of(&head));
}

/* --- what is asked of a block --------------------------------------------------------------------------- */

/* find(block, name, plain) -> the value of its first field of that name, or None. name: in lower case; plain:
 * `-` and other marks are one. */
static PyObject *find(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 3 || !PyBytes_CheckExact(args[0]) || !PyBytes_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "find(bytes, bytes, bool)");
        return NULL;
    }
    const unsigned char *map = args[2] == Py_True ? PLAIN : LOWER;
    const char *name = PyBytes_AS_STRING(args[1]);
    At at = (At)PyBytes_AS_STRING(args[0]), end = at + PyBytes_GET_SIZE(args[0]);
    while (at < end) {
        At colon = behind(at, map, name), line_end = memchr(at, '\r', (size_t)(end - at));
        if (!line_end)
            break;
        if (colon && *colon == ':')
            return slice(colon + 2, line_end);
        at = line_end + 2;
    }
    Py_RETURN_NONE;
}

/* holds(block, word) -> whether the word is somewhere in it: bytes.find takes several times as long. */
static PyObject *holds(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyBytes_CheckExact(args[0]) || !PyBytes_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "holds(bytes, bytes)");
        return NULL;
    }
    return PyBool_FromLong(memmem(PyBytes_AS_STRING(args[0]), (size_t)PyBytes_GET_SIZE(args[0]),
                                  PyBytes_AS_STRING(args[1]), (size_t)PyBytes_GET_SIZE(args[1])) != NULL);
}

/* --- the module ----------------------------------------------------------------------------------------- */

static void fill_tables(void)
{
    for (int byte = 0; byte < 256; byte++) {
        SAME[byte] = (unsigned char)byte;
        LOWER[byte] = (unsigned char)(byte >= 'A' && byte <= 'Z' ? byte + 32 : byte);
        DIGIT[byte] = -1;
        int is_letter_or_digit = (byte >= '0' && byte <= '9') || (LOWER[byte] >= 'a' && LOWER[byte] <= 'z');
        if (is_letter_or_digit || (byte && strchr("!#$%&'*+-.^_`|~", byte)))
            CLASS[byte] |= TOKEN; /* RFC 9110 §5.6.2 */
        PLAIN[byte] = CLASS[byte] & TOKEN && !is_letter_or_digit ? '-' : LOWER[byte];
        if (is_letter_or_digit || (byte && strchr("-._~", byte)))
            CLASS[byte] |= UNRESERVED; /* RFC 3986 §2.3 */
        if (CLASS[byte] & UNRESERVED && byte != '.' && byte == LOWER[byte])
            CLASS[byte] |= LABEL;
        if (byte >= '0' && byte <= '9')
            CLASS[byte] |= DECIMAL | TRACE;
        if (byte >= 'a' && byte <= 'f')
            CLASS[byte] |= TRACE;
        if (byte == '\t' || (byte >= ' ' && byte != 127))
            CLASS[byte] |= VALUE; /* RFC 9110 §5.5 */
        if (byte > ' ' && byte < 127 && byte != '#')
            CLASS[byte] |= TARGET; /* RFC 9112 §3.2; UTF-8 is read with care */
    }
    for (int k = 0; k < 16; k++)
        DIGIT[(int)"0123456789abcdef"[k]] = DIGIT[(int)"0123456789ABCDEF"[k]] = (signed char)k;
}

static int fill_table(Table *table)
{
    Name *name = table->names;
    for (Py_ssize_t size = 0; size <= LONGEST; size++)
        for (table->first[size] = name; name->size == size; name++) {
            name->bit = (uint64_t)1 << (name - table->names);
            if (!(name->key = PyBytes_FromString(name->text)))
                return 0;
        }
    return !name->text;
}

static PyMethodDef FUNCTIONS[] = {
    {"read_request", read_request, METH_O, NULL},
    {"read_response", read_response, METH_O, NULL},
    {"find", (PyCFunction)(void (*)(void))find, METH_FASTCALL, NULL},
    {"holds", (PyCFunction)(void (*)(void))holds, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "native", NULL, -1, FUNCTIONS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_native(void)
{
    fill_tables();
    if (!fill_table(&REQUEST) || !fill_table(&RESPONSE))
        return NULL;
    PyObject *module = PyModule_Create(&MODULE);
    if (module && PyModule_AddObject(module, "SOURCE", PyLong_FromUnsignedLong(SOURCE_SUM)) < 0)
        Py_CLEAR(module);
    return module;
}
