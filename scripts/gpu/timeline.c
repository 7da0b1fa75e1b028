// Writes the start, the end and the name of every kernel and copy of a program, one line each, in nanoseconds.
//
//   gcc -shared -fPIC -I$CUPTI/include timeline.c -o timeline.so -L$CUPTI/lib64 -lcupti
//   CUDA_INJECTION64_PATH=$PWD/timeline.so TIMELINE=/tmp/timeline program      writes /tmp/timeline.PID
//
// The CUDA driver loads the library and calls InitializeInjection. timeline.py reads what it writes.
#include <cupti.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static FILE *out;

static void CUPTIAPI give_room(uint8_t **buffer, size_t *bytes, size_t *records) {
    *bytes = 8 << 20, *records = 0, *buffer = aligned_alloc(8, *bytes);
}

static void CUPTIAPI take(CUcontext context, uint32_t stream, uint8_t *buffer, size_t bytes, size_t valid) {
    CUpti_Activity *record = NULL;
    while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
        if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
            const CUpti_ActivityKernel10 *k = (const void *)record;
            fprintf(out, "%llu %llu %s\n", (unsigned long long)k->start, (unsigned long long)k->end, k->name);
        } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
            const CUpti_ActivityMemcpy6 *c = (const void *)record;
            const char *kinds[] = {"", "copy to the device", "copy to the host"};
            fprintf(out, "%llu %llu %s\n", (unsigned long long)c->start, (unsigned long long)c->end,
                    c->copyKind <= 2 ? kinds[c->copyKind] : "copy on the device");
        } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
            const CUpti_ActivityMemset4 *c = (const void *)record;
            fprintf(out, "%llu %llu memset\n", (unsigned long long)c->start, (unsigned long long)c->end);
        }
    }
    free(buffer);
}

static void finish(void) {
    cuptiActivityFlushAll(1);
    fclose(out);
}

int InitializeInjection(void) {
    char path[4096];
    snprintf(path, sizeof path, "%s.%d", getenv("TIMELINE") ? getenv("TIMELINE") : "timeline", getpid());
    out = fopen(path, "w");
    if (!out) return 0;
    cuptiActivityRegisterCallbacks(give_room, take);
    cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
    cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMCPY);
    cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMSET);
    atexit(finish);
    return 1;
}
