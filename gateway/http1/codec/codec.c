/* The head codec: heads as most peers send them, read in one pass (RFC 9112 §2 to §6).
 *
 * A function of bytes alone: what it returns is what the careful reader (request.py, response.py) would find in
 * the same bytes. It accepts a strict subset of what that one does, and answers None to the rest: it refuses
 * nothing itself, and decides nothing: framing, hosts and limits are judged in Python, for both readers alike.
 *
 * Bounds by construction. Input is a bytes object, which ends in a NUL that does not count. Every scan goes on
 * while a byte is of a class, every comparison while bytes are equal, and NUL is in no class and equals nothing
 * sought: none can pass the end. Sizes of output are summed up before it is allocated, and checked after.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

typedef const unsigned char *At; /* a place in the input */

enum { TOKEN = 1, VALUE = 2, TARGET = 4, UNRESERVED = 8, BLANK = 16 };
static unsigned char CLASS[256]; /* what a byte may be part of */
static unsigned char LOWER[256]; /* it in lower case */
static unsigned char PLAIN[256]; /* the same, marks as `-`: what services in the manner of CGI take a name for */
static signed char DIGIT[256];   /* its value as a hexadecimal digit, or -1 */

#define MAX_FIELDS 128
#define MAX_LENGTH_DIGITS 18 /* under 2^63: no length overflows */
#define MAX_NAME 19          /* bytes of the longest name below */

/* What becomes of a field: a place in the table of those acted on, or */
enum { KEPT = -1, DROPPED = -2 };

typedef struct {
    At name, value;
    Py_ssize_t name_size, value_size;
    int place;
} Field;

typedef struct {
    Field fields[MAX_FIELDS];
    int count;
    int has_claims; /* a kept field says what only a trusted proxy may say */
    At end; /* behind the empty line */
} Fields;

/* Names of fields acted on, in order of size. `passed_on`: and kept all the same. */
typedef struct {
    const char *text;
    int passed_on;
    PyObject *key;
} Name;

static Name REQUEST_NAMES[] = {
    {"te", 0, NULL},
    {"via", 0, NULL},
    {"host", 0, NULL},
    {"expect", 0, NULL},
    {"trailer", 0, NULL},
    {"upgrade", 0, NULL},
    {"cdn-loop", 0, NULL},
    {"forwarded", 0, NULL},
    {"connection", 0, NULL},
    {"keep-alive", 0, NULL},
    {"tracestate", 0, NULL},
    {"traceparent", 0, NULL},
    {"max-forwards", 0, NULL},
    {"x-request-id", 0, NULL},
    {"content-length", 0, NULL},
    {"http2-settings", 0, NULL},
    {"x-forwarded-for", 0, NULL},
    {"proxy-connection", 0, NULL},
    {"x-forwarded-host", 0, NULL},
    {"x-forwarded-port", 0, NULL},
    {"transfer-encoding", 0, NULL},
    {"x-forwarded-proto", 0, NULL},
    {"proxy-authorization", 0, NULL},
    {NULL, 0, NULL},
};
static Name RESPONSE_NAMES[] = {
    {"te", 0, NULL},
    {"trailer", 0, NULL},
    {"upgrade", 0, NULL},
    {"x-outcome", 0, NULL},
    {"connection", 0, NULL},
    {"keep-alive", 0, NULL},
    {"content-length", 1, NULL},
    {"proxy-connection", 0, NULL},
    {"transfer-encoding", 0, NULL},
    {"proxy-authenticate", 0, NULL},
    {"proxy-authentication-info", 0, NULL},
    {NULL, 0, NULL},
};

/* --- words ---------------------------------------------------------------------------------------------- */

/* The place behind `text`, if the input goes on with it, whatever the case; else NULL. text: in lower case. */
static At behind(At at, const char *text)
{
    for (; *text; at++, text++)
        if (LOWER[*at] != (unsigned char)*text)
            return NULL;
    return at;
}

static At skip(At at, int class)
{
    while (CLASS[*at] & class)
        at++;
    return at;
}

/* Whether `size` bytes, each seen through `map`, are `text`. */
static int is_word(At word, Py_ssize_t size, const unsigned char *map, const char *text)
{
    for (; size && *text; size--, word++, text++)
        if (map[*word] != (unsigned char)*text)
            return 0;
    return !size && !*text;
}

/* --- fields (RFC 9112 §5) ------------------------------------------------------------------------------- */

/* What becomes of a field of this name. Other marks make it another name, but one that poses as the first:
 * X_Forwarded_For is not acted on, nor passed on. */
static int place_of(const Field *field, const Name *names)
{
    for (int place = 0; names[place].text; place++)
        if (is_word(field->name, field->name_size, PLAIN, names[place].text))
            return is_word(field->name, field->name_size, LOWER, names[place].text) ? place : DROPPED;
    return KEPT;
}

/* Whether a request's field is for proxies alone, or a setting of a CGI service's own (CVE-2016-5385). */
static int is_for_proxies(const Field *field)
{
    At rest = behind(field->name, "proxy");
    return rest && (*rest == ':' || *rest == '-');
}

/* X-Forwarded-… and X-Real-IP, however spelled; `X-Forwarded-` with nothing behind it too. */
static int is_claim(const Field *field)
{
    const char *prefix = "x-forwarded-";
    Py_ssize_t size = (Py_ssize_t)strlen(prefix);
    if (field->name_size >= size && is_word(field->name, size, PLAIN, prefix))
        return 1;
    return is_word(field->name, field->name_size, PLAIN, "x-real-ip");
}

/* Read `name: value` and its end. Returns the place behind it, NULL for any other form. */
static At read_field(At at, Field *field)
{
    field->name = at;
    at = skip(at, TOKEN);
    field->name_size = at - field->name;
    if (!field->name_size || *at != ':')
        return NULL;
    field->value = at = skip(at + 1, BLANK);
    at = skip(at, VALUE);
    if (at[0] != '\r' || at[1] != '\n')
        return NULL;
    At end = at;
    while (end > field->value && CLASS[end[-1]] & BLANK)
        end--;
    field->value_size = end - field->value;
    return at + 2;
}

/* Read fields up to the empty line and say what becomes of each. Returns 0 for a head that is not whole, not
 * in this form, or holds a field twice that is acted on: several of a name are another's to join. */
static int read_fields(At at, Fields *head, const Name *names, int is_request)
{
    unsigned int seen = 0;
    head->count = head->has_claims = 0;
    while (*at != '\r') {
        Field *field = &head->fields[head->count];
        if (head->count == MAX_FIELDS || !(at = read_field(at, field)))
            return 0;
        head->count++;
        field->place = place_of(field, names);
        if (field->place >= 0) {
            if (seen & 1u << field->place)
                return 0;
            seen |= 1u << field->place;
        } else if (!is_request) {
            field->place = KEPT;
        } else if (field->place == KEPT) {
            if (is_for_proxies(field))
                field->place = DROPPED;
            else
                head->has_claims |= is_claim(field);
        }
    }
    head->end = at + 2;
    return at[1] == '\n';
}

/* Whether no blanks are around a value but one space in front: llhttp takes tabs for part of a coding. */
static int is_bare(const Field *field)
{
    return field->value[field->value_size] == '\r' && field->value[-1] != '\t';
}

/* Whether what frames the message is as simple as it can be (RFC 9112 §6): one length in digits, or `chunked`
 * alone, or neither. */
static int is_plainly_framed(const Fields *head, const Name *names)
{
    int framings = 0;
    for (const Field *field = head->fields; field < head->fields + head->count; field++) {
        if (field->place < 0)
            continue;
        const char *name = names[field->place].text;
        if (!strcmp(name, "content-length")) {
            framings++;
            if (!is_bare(field) || !field->value_size || field->value_size > MAX_LENGTH_DIGITS)
                return 0;
            for (Py_ssize_t k = 0; k < field->value_size; k++)
                if (field->value[k] < '0' || field->value[k] > '9')
                    return 0;
        } else if (!strcmp(name, "transfer-encoding")) {
            framings++;
            if (!is_bare(field) || !is_word(field->value, field->value_size, LOWER, "chunked"))
                return 0;
        }
    }
    return framings < 2;
}

/* Lower-case name -> value of the fields acted on. */
static PyObject *special_of(const Fields *head, const Name *names)
{
    PyObject *special = PyDict_New();
    for (const Field *field = head->fields; special && field < head->fields + head->count; field++) {
        if (field->place < 0)
            continue;
        PyObject *value = PyBytes_FromStringAndSize((const char *)field->value, field->value_size);
        if (!value || PyDict_SetItem(special, names[field->place].key, value) < 0)
            Py_CLEAR(special);
        Py_XDECREF(value);
    }
    return special;
}

static int is_passed_on(const Field *field, const Name *names)
{
    return field->place == KEPT || (field->place >= 0 && names[field->place].passed_on);
}

static char *put(char *out, const void *bytes, Py_ssize_t size)
{
    memcpy(out, bytes, (size_t)size);
    return out + size;
}

/* The fields that are passed on, as lines. */
static PyObject *block_of(const Fields *head, const Name *names)
{
    const Field *end = head->fields + head->count;
    Py_ssize_t size = 0;
    for (const Field *field = head->fields; field < end; field++)
        if (is_passed_on(field, names))
            size += field->name_size + field->value_size + 4;
    PyObject *block = PyBytes_FromStringAndSize(NULL, size);
    if (!block)
        return NULL;
    char *out = PyBytes_AS_STRING(block);
    for (const Field *field = head->fields; field < end; field++)
        if (is_passed_on(field, names)) {
            out = put(out, field->name, field->name_size);
            out = put(out, ": ", 2);
            out = put(out, field->value, field->value_size);
            out = put(out, "\r\n", 2);
        }
    assert(out == PyBytes_AS_STRING(block) + size);
    return block;
}

/* --- the request line (RFC 9112 §3) --------------------------------------------------------------------- */

static const char *const METHODS[] = {"GET", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS"};
enum { METHOD_COUNT = sizeof METHODS / sizeof *METHODS };
static PyObject *METHOD_OBJECTS[METHOD_COUNT];

static PyObject *slice(At from, At to)
{
    return PyBytes_FromStringAndSize((const char *)from, to - from);
}

/* The method as bytes, shared if it is a usual one (RFC 9110 §9.1: case counts). */
static PyObject *method_of(At from, At to)
{
    for (int k = 0; k < METHOD_COUNT; k++)
        if ((size_t)(to - from) == strlen(METHODS[k]) && !memcmp(from, METHODS[k], (size_t)(to - from)))
            return Py_NewRef(METHOD_OBJECTS[k]);
    return slice(from, to);
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

/* read_request(data, header_bytes, header_fields, uri_bytes) -> (end, method, target, path, raw_path, query,
 * special, block, has_claims), or None. */
static PyObject *read_request(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 4 || !PyBytes_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "read_request(bytes, int, int, int)");
        return NULL;
    }
    Py_ssize_t header_bytes = PyLong_AsSsize_t(args[1]), header_fields = PyLong_AsSsize_t(args[2]);
    Py_ssize_t uri_bytes = PyLong_AsSsize_t(args[3]);
    if (PyErr_Occurred())
        return NULL;
    At data = (At)PyBytes_AS_STRING(args[0]);
    At space = skip(data, TOKEN);
    At target = space + 1;
    if (space == data || *space != ' ' || *target != '/')
        Py_RETURN_NONE;
    At end = skip(target, TARGET), path_end = target;
    while (path_end < end && *path_end != '?')
        path_end++;
    At line_end = behind(end, " http/1.1\r\n"); /* any case: looked at below */
    Fields head;
    if (!line_end || memcmp(end + 1, "HTTP", 4) || end - target > uri_bytes ||
        (space - data == 7 && !memcmp(data, "CONNECT", 7)) ||
        !read_fields(line_end, &head, REQUEST_NAMES, 1) || head.count > header_fields ||
        head.end - data > header_bytes || !is_plainly_framed(&head, REQUEST_NAMES))
        Py_RETURN_NONE;

    PyObject *whole = slice(target, end);
    PyObject *raw = path_end == end ? Py_XNewRef(whole) : slice(target, path_end);
    PyObject *path = is_normal(target, path_end) ? Py_XNewRef(raw) : normal_path(target, path_end);
    if (!path && !PyErr_Occurred()) {
        Py_XDECREF(whole);
        Py_XDECREF(raw);
        Py_RETURN_NONE;
    }
    return Py_BuildValue("(nNNNNNNNO)", head.end - data, method_of(data, space), whole, path, raw,
                         slice(path_end, end), special_of(&head, REQUEST_NAMES), block_of(&head, REQUEST_NAMES),
                         head.has_claims ? Py_True : Py_False);
}

/* --- the status line (RFC 9112 §4) ---------------------------------------------------------------------- */

/* read_response(data, header_bytes, header_fields) -> (end, status, special, block), or None. Of HTTP/1.1
 * and final responses only. */
static PyObject *read_response(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 3 || !PyBytes_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "read_response(bytes, int, int)");
        return NULL;
    }
    Py_ssize_t header_bytes = PyLong_AsSsize_t(args[1]), header_fields = PyLong_AsSsize_t(args[2]);
    if (PyErr_Occurred())
        return NULL;
    At data = (At)PyBytes_AS_STRING(args[0]);
    At at = behind(data, "http/1.1 ");
    if (!at || memcmp(data, "HTTP", 4))
        Py_RETURN_NONE;
    int status = 0;
    for (int k = 0; k < 3; k++, at++) {
        if (*at < '0' || *at > '9')
            Py_RETURN_NONE;
        status = status * 10 + (*at - '0');
    }
    if (*at == ' ')
        at = skip(at, VALUE); /* the reason phrase means nothing */
    At line_end = behind(at, "\r\n");
    Fields head;
    if (status < 200 || !line_end || !read_fields(line_end, &head, RESPONSE_NAMES, 0) ||
        head.count > header_fields || head.end - data > header_bytes ||
        !is_plainly_framed(&head, RESPONSE_NAMES))
        Py_RETURN_NONE;
    return Py_BuildValue("(niNN)", head.end - data, status, special_of(&head, RESPONSE_NAMES),
                         block_of(&head, RESPONSE_NAMES));
}

/* --- what is asked of a block --------------------------------------------------------------------------- */

/* find(block, name, plain) -> the value of its first field of that name, or None. name: in lower case; plain:
 * `-` and other marks are one. */
static PyObject *find(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 3 || !PyBytes_CheckExact(args[0]) || !PyBytes_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "find(bytes, bytes, bool)");
        return NULL;
    }
    const unsigned char *map = args[2] == Py_True ? PLAIN : LOWER;
    const char *name = PyBytes_AS_STRING(args[1]);
    At at = (At)PyBytes_AS_STRING(args[0]), end = at + PyBytes_GET_SIZE(args[0]);
    while (at < end) {
        At colon = skip(at, TOKEN), line_end = memchr(at, '\r', (size_t)(end - at));
        if (!line_end || *colon != ':')
            break;
        if (is_word(at, colon - at, map, name))
            return slice(colon + 2, line_end);
        at = line_end + 2;
    }
    Py_RETURN_NONE;
}

/* --- the module ----------------------------------------------------------------------------------------- */

static void fill_tables(void)
{
    for (int byte = 0; byte < 256; byte++) {
        LOWER[byte] = (unsigned char)(byte >= 'A' && byte <= 'Z' ? byte + 32 : byte);
        DIGIT[byte] = -1;
        int is_letter_or_digit = (byte >= '0' && byte <= '9') || (LOWER[byte] >= 'a' && LOWER[byte] <= 'z');
        if (is_letter_or_digit || (byte && strchr("!#$%&'*+-.^_`|~", byte)))
            CLASS[byte] |= TOKEN; /* RFC 9110 §5.6.2 */
        PLAIN[byte] = CLASS[byte] & TOKEN && !is_letter_or_digit ? '-' : LOWER[byte];
        if (is_letter_or_digit || (byte && strchr("-._~", byte)))
            CLASS[byte] |= UNRESERVED; /* RFC 3986 §2.3 */
        if (byte == ' ' || byte == '\t')
            CLASS[byte] |= BLANK | VALUE;
        if (byte > ' ' && byte != 127)
            CLASS[byte] |= VALUE; /* RFC 9110 §5.5 */
        if (byte > ' ' && byte < 127 && byte != '#')
            CLASS[byte] |= TARGET; /* RFC 9112 §3.2; UTF-8 is read with care */
    }
    for (int k = 0; k < 16; k++)
        DIGIT[(int)"0123456789abcdef"[k]] = DIGIT[(int)"0123456789ABCDEF"[k]] = (signed char)k;
}

static int make_keys(Name *names)
{
    for (; names->text; names++)
        if (!(names->key = PyBytes_FromString(names->text)))
            return 0;
    return 1;
}

static PyMethodDef FUNCTIONS[] = {
    {"read_request", (PyCFunction)(void (*)(void))read_request, METH_FASTCALL, NULL},
    {"read_response", (PyCFunction)(void (*)(void))read_response, METH_FASTCALL, NULL},
    {"find", (PyCFunction)(void (*)(void))find, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "native", NULL, -1, FUNCTIONS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_native(void)
{
    fill_tables();
    if (!make_keys(REQUEST_NAMES) || !make_keys(RESPONSE_NAMES))
        return NULL;
    for (int k = 0; k < METHOD_COUNT; k++)
        if (!(METHOD_OBJECTS[k] = PyBytes_FromString(METHODS[k])))
            return NULL;
    PyObject *module = PyModule_Create(&MODULE);
    if (module && PyModule_AddObject(module, "SOURCE", PyLong_FromUnsignedLong(CODEC_SOURCE)) < 0)
        Py_CLEAR(module);
    return module;
}
