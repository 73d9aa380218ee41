/* Answers the NVML calls that this project makes, from the JSON file named by NVML_STAND_IN_JSON.
 *
 * The file is read anew at each call, so that a test can change it while a program runs:
 *   {"driver_version": "…", "gpus": [{"uuid": "…", "name": "…", "memory_total_bytes": 1,
 *    "memory_used_bytes": 1, "utilization": 1, "temperature": 1, "power_milliwatts": 1,
 *    "pci_bus_id": "…", "numa_node": 0, "lost": 0}]}
 * A key that is missing makes its call "not supported"; "error": N at the top makes every call return N; no
 * file means that no driver is loaded. Layouts of structures are those of the public NVML interface.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, UNINITIALISED = 1, BAD_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_DRIVER = 9, GPU_LOST = 15 };
enum { MAX_FILE = 65536 };

typedef struct { const char *begin, *end; } span;

static char text[MAX_FILE];
static int initialised;

static const char *skip_string(const char *at, const char *end) {
    for (at++; at < end && *at != '"'; at++)
        if (*at == '\\') at++;
    return at < end ? at + 1 : end;
}

/* Past the value that begins at `at`. */
static const char *skip_value(const char *at, const char *end) {
    int depth = 0;
    while (at < end) {
        if (*at == '"') { at = skip_string(at, end); if (!depth) return at; continue; }
        if (*at == '{' || *at == '[') depth++;
        else if (*at == '}' || *at == ']') { if (!depth) return at; if (!--depth) return at + 1; }
        else if (*at == ',' && !depth) return at;
        at++;
    }
    return end;
}

static const char *skip_blank(const char *at, const char *end) {
    while (at < end && strchr(" \t\r\n,:", *at)) at++;
    return at;
}

/* Value of a key in an object (the span includes its braces). */
static int member(span object, const char *key, span *value) {
    const char *at = skip_blank(object.begin + 1, object.end - 1), *end = object.end - 1;
    while (at < end && *at == '"') {
        const char *name = at + 1;
        at = skip_string(at, end);
        size_t length = (size_t)(at - 1 - name);
        at = skip_blank(at, end);
        const char *after = skip_value(at, end);
        if (length == strlen(key) && !strncmp(name, key, length)) {
            value->begin = at;
            value->end = after;
            return 1;
        }
        at = skip_blank(after, end);
    }
    return 0;
}

/* After an error, the library must be initialised anew, as after a reload of the real driver. */
static int read_file(span *root) {
    const char *path = getenv("NVML_STAND_IN_JSON");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return NO_DRIVER;
    size_t size = fread(text, 1, MAX_FILE - 1, file);
    fclose(file);
    text[size] = 0;
    root->begin = skip_blank(text, text + size);
    root->end = skip_value(root->begin, text + size);
    span error;
    int status = member(*root, "error", &error) ? atoi(error.begin) : OK;
    if (status) initialised = 0;
    return status;
}

static int read_root(span *root) {
    int status = read_file(root);
    return status ? status : initialised ? OK : UNINITIALISED;
}

static int gpu_at(unsigned index, span *gpu, unsigned *count) {
    span root, list;
    int status = read_root(&root);
    if (status) return status;
    *count = 0;
    if (!member(root, "gpus", &list)) return index ? BAD_ARGUMENT : OK;
    const char *end = list.end - 1, *at = skip_blank(list.begin + 1, end);
    int found = 0;
    while (at < end && *at == '{') {
        const char *after = skip_value(at, end);
        if (*count == index) { gpu->begin = at; gpu->end = after; found = 1; }
        ++*count;
        at = skip_blank(after, end);
    }
    return found ? OK : BAD_ARGUMENT;
}

/* A handle is the index plus one, as a pointer. */
static int value_of(void *handle, const char *key, span *value) {
    span gpu, lost;
    unsigned count;
    int status = gpu_at((unsigned)(size_t)handle - 1, &gpu, &count);
    if (status) return status;
    if (member(gpu, "lost", &lost) && atoi(lost.begin)) return GPU_LOST;
    return member(gpu, key, value) ? OK : NOT_SUPPORTED;
}

static int copy(span value, char *target, unsigned size) {
    unsigned length = (unsigned)(value.end - value.begin) - 2;
    if (length >= size) return BAD_ARGUMENT;
    memcpy(target, value.begin + 1, length);
    target[length] = 0;
    return OK;
}

static int text_of(void *handle, const char *key, char *target, unsigned size) {
    span value;
    int status = value_of(handle, key, &value);
    return status ? status : copy(value, target, size);
}

static int number_of(void *handle, const char *key, unsigned *target) {
    span value;
    int status = value_of(handle, key, &value);
    if (!status) *target = (unsigned)strtoul(value.begin, NULL, 10);
    return status;
}

int nvmlInitWithFlags(unsigned flags) {
    span root;
    int status = read_file(&root);
    (void)flags;
    if (!status) initialised = 1;
    return status;
}

int nvmlShutdown(void) { initialised = 0; return OK; }
const char *nvmlErrorString(int status) { return status == GPU_LOST ? "GPU is lost" : "stand-in error"; }

int nvmlSystemGetDriverVersion(char *target, unsigned size) {
    span root, value;
    int status = read_root(&root);
    if (status) return status;
    return member(root, "driver_version", &value) ? copy(value, target, size) : NOT_SUPPORTED;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    span gpu;
    int status = gpu_at(0, &gpu, count);
    return status == BAD_ARGUMENT ? OK : status;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    span gpu, lost;
    unsigned count;
    int status = gpu_at(index, &gpu, &count);
    if (!status && member(gpu, "lost", &lost) && atoi(lost.begin)) status = GPU_LOST;
    *handle = (void *)(size_t)(index + 1);
    return status;
}

int nvmlDeviceGetUUID(void *handle, char *target, unsigned size) { return text_of(handle, "uuid", target, size); }
int nvmlDeviceGetName(void *handle, char *target, unsigned size) { return text_of(handle, "name", target, size); }

int nvmlDeviceGetMemoryInfo(void *handle, unsigned long long memory[3]) { /* total, free, used */
    span total, used;
    int status = value_of(handle, "memory_total_bytes", &total);
    if (status) return status;
    memory[0] = strtoull(total.begin, NULL, 10);
    status = value_of(handle, "memory_used_bytes", &used);
    if (status) return status;
    memory[2] = strtoull(used.begin, NULL, 10);
    memory[1] = memory[0] - memory[2];
    return OK;
}

int nvmlDeviceGetUtilizationRates(void *handle, unsigned rates[2]) { /* GPU, memory */
    if (number_of(handle, "memory_utilization", rates + 1)) rates[1] = 0;
    return number_of(handle, "utilization", rates);
}

int nvmlDeviceGetClockInfo(void *handle, int kind, unsigned *mhz) { /* 0: graphics, 2: memory */
    return number_of(handle, kind == 2 ? "memory_clock" : "graphics_clock", mhz);
}

int nvmlDeviceGetFanSpeed(void *handle, unsigned *percent) { return number_of(handle, "fan_percent", percent); }

int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *milliwatts) {
    return number_of(handle, "power_limit_milliwatts", milliwatts);
}

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *degrees) {
    (void)sensor;
    return number_of(handle, "temperature", degrees);
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) {
    return number_of(handle, "power_milliwatts", milliwatts);
}

struct pci { char legacy[16]; unsigned domain, bus, device, ids[2]; char bus_id[32]; };

int nvmlDeviceGetPciInfo_v3(void *handle, struct pci *pci) {
    memset(pci, 0, sizeof *pci);
    return text_of(handle, "pci_bus_id", pci->bus_id, sizeof pci->bus_id);
}

int nvmlDeviceGetMemoryAffinity(void *handle, unsigned size, unsigned long *nodes, int scope) {
    unsigned node;
    int status = number_of(handle, "numa_node", &node);
    (void)scope;
    if (!status && size) nodes[0] = 1UL << node;
    return status;
}
