/* The head codec: heads as most peers send them, read in one pass (RFC 9112 §2 to §6).
 *
 * A function of bytes alone: what it returns is what the careful reader (request.py, response.py) would find in
 * the same bytes. It accepts a strict subset of what that one does, and answers None to the rest: it refuses
 * nothing itself, and decides nothing: framing, hosts and limits are judged in Python, for both readers alike.
 *
 * Bounds by construction. Input is a bytes object, which ends in a NUL that does not count. Every scan goes on
 * while a byte is of a class, every comparison while bytes are equal, and NUL is in no class and equals nothing
 * sought: none can pass the end. Eight bytes are looked at together only in front of it. Sizes of output are summed
 * up before it is allocated, and checked after.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

typedef const unsigned char *At; /* a place in the input */

enum { TOKEN = 1, VALUE = 2, TARGET = 4, UNRESERVED = 8, BLANK = 16, TRACE = 32 };
static unsigned char CLASS[256]; /* what a byte may be part of */
static unsigned char LOWER[256]; /* it in lower case */
static unsigned char PLAIN[256]; /* the same, marks as `-`: what services in the manner of CGI take a name for */
static signed char DIGIT[256];   /* its value as a hexadecimal digit, or -1 */

#define MAX_FIELDS 128
#define MAX_LENGTH_DIGITS 18 /* under 2^63: no length overflows */
#define MAX_AUTHORITY 261    /* as in target.py */

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
    uint64_t marks; /* of the names kept: see mark_of */
    int is_usual;   /* none is acted on but USUAL ones */
    int is_traced;  /* there is a traceparent of the usual form */
    int is_dated;
    Py_ssize_t length;       /* of the body, or */
    const Field *connection; /* unless it says what holds without it */
    const Field *host;
    At end;                  /* behind the empty line */
} Fields;

enum { CHUNKED = -1, UNSAID = -2 };

/* A field acted on may be PASSED_ON all the same; USUAL: nothing follows from it but what it says itself; APART:
 * what it says is told apart. */
enum { PASSED_ON = 1, USUAL = 2, APART = 4 };
enum { LENGTH = 8, CODING = 16, CONNECTION = 32, HOST = 64, PARENT = 128, DATE = 256 };

/* Names of fields acted on, in order of size, and the first place of each size. */
#define LONGEST 25
typedef struct {
    const char *text;
    int kind;
    Py_ssize_t size;
    PyObject *key;
} Name;
typedef struct {
    Name names[24]; /* the last is none */
    unsigned char first[LONGEST + 1];
} Table;

#define NAME(text, kind) {text, kind, sizeof text - 1, NULL}

static Table REQUEST = {.names = {
    NAME("te", 0), NAME("via", USUAL), NAME("host", HOST | USUAL), NAME("expect", 0), NAME("trailer", 0),
    NAME("upgrade", 0), NAME("cdn-loop", 0), NAME("forwarded", USUAL), NAME("connection", CONNECTION),
    NAME("keep-alive", 0), NAME("tracestate", USUAL), NAME("traceparent", PARENT | USUAL),
    NAME("max-forwards", 0), NAME("x-request-id", USUAL), NAME("content-length", LENGTH | USUAL),
    NAME("http2-settings", 0), NAME("x-forwarded-for", USUAL), NAME("proxy-connection", 0),
    NAME("x-forwarded-host", USUAL), NAME("x-forwarded-port", USUAL), NAME("transfer-encoding", CODING),
    NAME("x-forwarded-proto", USUAL), NAME("proxy-authorization", 0),
}};
static Table RESPONSE = {.names = {
    NAME("te", 0), NAME("date", DATE | APART | PASSED_ON), NAME("trailer", 0), NAME("upgrade", 0),
    NAME("x-outcome", 0), NAME("connection", CONNECTION | APART), NAME("keep-alive", 0),
    NAME("content-length", LENGTH | APART | PASSED_ON), NAME("proxy-connection", 0),
    NAME("transfer-encoding", CODING | APART), NAME("proxy-authenticate", 0), NAME("proxy-authentication-info", 0),
}};

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
static int place_of(const Field *field, const Table *table)
{
    const Py_ssize_t size = field->name_size;
    const Name *names = table->names;
    for (int place = size <= LONGEST ? table->first[size] : 0; names[place].size == size; place++)
        if (is_word(field->name, size, PLAIN, names[place].text))
            return is_word(field->name, size, LOWER, names[place].text) ? place : DROPPED;
    return KEPT;
}

/* The bit that stands for a name, and for a few others: a head without it holds no such field. */
static uint64_t mark_of(const Field *field)
{
    const Py_ssize_t size = field->name_size;
    return (uint64_t)1 << (size * 3 + PLAIN[field->name[0]] + PLAIN[field->name[size - 1]]) % 61;
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
static At read_field(At at, At data_end, Field *field)
{
    field->name = at;
    at = skip(at, TOKEN);
    field->name_size = at - field->name;
    if (!field->name_size || *at != ':')
        return NULL;
    field->value = at = skip(at + 1, BLANK);
    at = skip_value(at, data_end);
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
static int read_fields(At at, At data_end, Fields *head, const Table *table, int is_request)
{
    unsigned int seen = 0;
    head->count = head->has_claims = 0;
    head->marks = 0;
    while (*at != '\r') {
        Field *field = &head->fields[head->count];
        if (head->count == MAX_FIELDS || !(at = read_field(at, data_end, field)))
            return 0;
        head->count++;
        field->place = place_of(field, table);
        if (field->place >= 0) {
            if (seen & 1u << field->place)
                return 0;
            seen |= 1u << field->place;
        } else if (!is_request) {
            field->place = KEPT;
        } else if (field->place == KEPT) {
            if (is_for_proxies(field))
                field->place = DROPPED;
            else {
                head->has_claims |= is_claim(field);
                head->marks |= mark_of(field);
            }
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

/* Read a length in digits. Returns UNSAID for any other form. */
static Py_ssize_t length_of(const Field *field)
{
    Py_ssize_t length = 0;
    if (!is_bare(field) || !field->value_size || field->value_size > MAX_LENGTH_DIGITS)
        return UNSAID;
    for (Py_ssize_t k = 0; k < field->value_size; k++) {
        if (field->value[k] < '0' || field->value[k] > '9')
            return UNSAID;
        length = length * 10 + (field->value[k] - '0');
    }
    return length;
}

/* Whether a value is a traceparent of version 00 (https://www.w3.org/TR/trace-context/ §3.2). */
static int is_traceparent(const Field *field)
{
    At at = field->value;
    if (field->value_size != 55 || memcmp(at, "00-", 3) || at[35] != '-' || at[52] != '-')
        return 0;
    return skip(at + 3, TRACE) == at + 35 && skip(at + 36, TRACE) == at + 52 && skip(at + 53, TRACE) == at + 55;
}

/* Read what frames the message (RFC 9112 §6) and governs the connection. Returns 0 unless the former is as simple
 * as it can be: one length in digits, or `chunked` alone, or neither. */
static int read_framing(Fields *head, const Name *names)
{
    head->length = UNSAID;
    head->connection = head->host = NULL;
    head->is_usual = 1;
    head->is_traced = head->is_dated = 0;
    for (const Field *field = head->fields; field < head->fields + head->count; field++) {
        int kind = field->place < 0 ? 0 : names[field->place].kind;
        if (kind & (LENGTH | CODING)) {
            if (head->length != UNSAID)
                return 0;
            if (kind & LENGTH)
                head->length = length_of(field);
            else if (is_bare(field) && is_word(field->value, field->value_size, LOWER, "chunked"))
                head->length = CHUNKED;
            if (head->length == UNSAID)
                return 0;
        } else if (kind & CONNECTION) {
            if (field->value_size == 10 && !memcmp(field->value, "keep-alive", 10))
                continue;
            head->connection = field;
        } else if (kind & HOST) {
            head->host = field;
        } else if (kind & PARENT) {
            head->is_traced = is_traceparent(field);
        } else if (kind & DATE) {
            head->is_dated = 1;
        }
        head->is_usual &= field->place < 0 || kind & USUAL;
    }
    return 1;
}

static PyObject *NOTHING; /* a dict that stays empty */

static PyObject *slice(At from, At to)
{
    return PyBytes_FromStringAndSize((const char *)from, to - from);
}

/* Lower-case name -> value of the fields acted on but those told APART. Nobody adds to it. */
static PyObject *special_of(const Fields *head, const Name *names)
{
    PyObject *special = Py_NewRef(NOTHING);
    for (const Field *field = head->fields; special && field < head->fields + head->count; field++) {
        if (field->place < 0 || names[field->place].kind & APART)
            continue;
        if (special == NOTHING)
            Py_SETREF(special, PyDict_New());
        PyObject *value = slice(field->value, field->value + field->value_size);
        if (!special || !value || PyDict_SetItem(special, names[field->place].key, value) < 0)
            Py_CLEAR(special);
        Py_XDECREF(value);
    }
    return special;
}

static int is_passed_on(const Field *field, const Name *names)
{
    return field->place == KEPT || (field->place >= 0 && names[field->place].kind & PASSED_ON);
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
            At end_of_value = field->value + field->value_size;
            if (is_bare(field) && field->value[-1] == ' ' && field->value[-2] == ':') { /* a line like ours */
                out = put(out, field->name, end_of_value + 2 - field->name);
                continue;
            }
            out = put(out, field->name, field->name_size);
            out = put(out, ": ", 2);
            out = put(out, field->value, field->value_size);
            out = put(out, "\r\n", 2);
        }
    assert(out == PyBytes_AS_STRING(block) + size);
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

static PyObject *value_of(const Field *field)
{
    return field ? slice(field->value, field->value + field->value_size) : Py_NewRef(Py_None);
}

/* --- the request line (RFC 9112 §3) --------------------------------------------------------------------- */

static const char *const METHODS[] = {"GET", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS"};
enum { METHOD_COUNT = sizeof METHODS / sizeof *METHODS };
static PyObject *METHOD_OBJECTS[METHOD_COUNT];

/* The method as bytes, shared if it is a usual one (RFC 9110 §9.1: case counts). */
static PyObject *method_of(At from, At to)
{
    for (int k = 0; k < METHOD_COUNT; k++)
        if ((size_t)(to - from) == strlen(METHODS[k]) && !memcmp(from, METHODS[k], (size_t)(to - from)))
            return Py_NewRef(METHOD_OBJECTS[k]);
    return slice(from, to);
}

/* The host of a Host field, if it is its own normal form but for a port; else None, and target.py judges it. */
static PyObject *host_of(const Field *field)
{
    At at = field ? field->value : NULL, end = field ? at + field->value_size : NULL, begin = at;
    while (at < end && CLASS[*at] & UNRESERVED && LOWER[*at] == *at && (*at != '.' || at[1] != '.'))
        at++;
    At host_end = at;
    int port = 0;
    if (at < end && *at == ':')
        for (at++; at < end && at - host_end <= 5 && *at >= '0' && *at <= '9'; at++)
            port = port * 10 + (*at - '0');
    if (at < end || host_end == begin || host_end[-1] == '.' || port > 65535 || end - begin > MAX_AUTHORITY)
        Py_RETURN_NONE;
    return PyUnicode_DecodeASCII((const char *)begin, host_end - begin, NULL);
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

/* read_request(data, header_bytes, header_fields, uri_bytes) -> (end, method, target, path, raw_path, query, host,
 * length, special, block, has_claims, is_usual, marks, is_traced), or None. */
static PyObject *read_request(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 4 || !PyBytes_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "read_request(bytes, int, int, int)");
        return NULL;
    }
    Py_ssize_t header_bytes = PyLong_AsSsize_t(args[1]), header_fields = PyLong_AsSsize_t(args[2]);
    Py_ssize_t uri_bytes = PyLong_AsSsize_t(args[3]);
    if (PyErr_Occurred())
        return NULL;
    At data = (At)PyBytes_AS_STRING(args[0]), data_end = data + PyBytes_GET_SIZE(args[0]);
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
        !read_fields(line_end, data_end, &head, &REQUEST, 1) || head.count > header_fields ||
        head.end - data > header_bytes || !read_framing(&head, REQUEST.names))
        Py_RETURN_NONE;

    PyObject *whole = slice(target, end);
    PyObject *raw = path_end == end ? Py_XNewRef(whole) : slice(target, path_end);
    PyObject *path = is_normal(target, path_end) ? Py_XNewRef(raw) : normal_path(target, path_end);
    if (!path && !PyErr_Occurred()) {
        Py_XDECREF(whole);
        Py_XDECREF(raw);
        Py_RETURN_NONE;
    }
    return TUPLE_OF(PyLong_FromSsize_t(head.end - data), method_of(data, space), whole, path, raw,
                    slice(path_end, end), host_of(head.host),
                    PyLong_FromSsize_t(head.length == UNSAID ? 0 : head.length), special_of(&head, REQUEST.names),
                    block_of(&head, REQUEST.names), PyBool_FromLong(head.has_claims),
                    PyBool_FromLong(head.is_usual), PyLong_FromUnsignedLongLong(head.marks),
                    PyBool_FromLong(head.is_traced));
}

/* --- the status line (RFC 9112 §4) ---------------------------------------------------------------------- */

/* read_response(data, header_bytes, header_fields) -> (end, status, length, connection, has_date, special, block),
 * or None. Of HTTP/1.1 and final responses only. */
static PyObject *read_response(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 3 || !PyBytes_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "read_response(bytes, int, int)");
        return NULL;
    }
    Py_ssize_t header_bytes = PyLong_AsSsize_t(args[1]), header_fields = PyLong_AsSsize_t(args[2]);
    if (PyErr_Occurred())
        return NULL;
    At data = (At)PyBytes_AS_STRING(args[0]), data_end = data + PyBytes_GET_SIZE(args[0]);
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
    if (status < 200 || !line_end || !read_fields(line_end, data_end, &head, &RESPONSE, 0) ||
        head.count > header_fields || head.end - data > header_bytes ||
        !read_framing(&head, RESPONSE.names))
        Py_RETURN_NONE;
    return TUPLE_OF(PyLong_FromSsize_t(head.end - data), PyLong_FromLong(status), PyLong_FromSsize_t(head.length),
                    value_of(head.connection), PyBool_FromLong(head.is_dated),
                    special_of(&head, RESPONSE.names), block_of(&head, RESPONSE.names));
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
        At colon = skip(at, TOKEN), line_end = memchr(at, '\r', (size_t)(end - at));
        if (!line_end || *colon != ':')
            break;
        if (is_word(at, colon - at, map, name))
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
        LOWER[byte] = (unsigned char)(byte >= 'A' && byte <= 'Z' ? byte + 32 : byte);
        DIGIT[byte] = -1;
        int is_letter_or_digit = (byte >= '0' && byte <= '9') || (LOWER[byte] >= 'a' && LOWER[byte] <= 'z');
        if (is_letter_or_digit || (byte && strchr("!#$%&'*+-.^_`|~", byte)))
            CLASS[byte] |= TOKEN; /* RFC 9110 §5.6.2 */
        PLAIN[byte] = CLASS[byte] & TOKEN && !is_letter_or_digit ? '-' : LOWER[byte];
        if (is_letter_or_digit || (byte && strchr("-._~", byte)))
            CLASS[byte] |= UNRESERVED; /* RFC 3986 §2.3 */
        if (byte && strchr("0123456789abcdef", byte))
            CLASS[byte] |= TRACE;
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

static int fill_table(Table *table)
{
    unsigned char place = 0;
    for (Py_ssize_t size = 0; size <= LONGEST; size++)
        for (table->first[size] = place; table->names[place].size == size; place++)
            if (!(table->names[place].key = PyBytes_FromString(table->names[place].text)))
                return 0;
    return !table->names[place].text;
}

static PyMethodDef FUNCTIONS[] = {
    {"read_request", (PyCFunction)(void (*)(void))read_request, METH_FASTCALL, NULL},
    {"read_response", (PyCFunction)(void (*)(void))read_response, METH_FASTCALL, NULL},
    {"find", (PyCFunction)(void (*)(void))find, METH_FASTCALL, NULL},
    {"holds", (PyCFunction)(void (*)(void))holds, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "native", NULL, -1, FUNCTIONS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_native(void)
{
    fill_tables();
    if (!fill_table(&REQUEST) || !fill_table(&RESPONSE) || !(NOTHING = PyDict_New()))
        return NULL;
    for (int k = 0; k < METHOD_COUNT; k++)
        if (!(METHOD_OBJECTS[k] = PyBytes_FromString(METHODS[k])))
            return NULL;
    PyObject *module = PyModule_Create(&MODULE);
    if (module && PyModule_AddObject(module, "SOURCE", PyLong_FromUnsignedLong(SOURCE_SUM)) < 0)
        Py_CLEAR(module);
    return module;
}
