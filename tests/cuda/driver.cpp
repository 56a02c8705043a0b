// A library in the place of NVIDIA's driver, for tests of the whole program: its devices run the emulated kernels on this machine.
//
//   TEGUM_TEST_DEVICES     how many devices there are (1)
//   TEGUM_TEST_MEMORY      bytes that a device has (all)
//   TEGUM_TEST_CAPABILITY  compute capability that devices have (90 for 9.0)
//   TEGUM_TEST_COUNT_GRAPHS  a line on stderr for each graph that runs
//   TEGUM_TEST_LOST        the device is lost after so many launches (never)
//   TEGUM_TEST_NO_ROOM     bytes that no allocation gets as many of, although they are there by the total (all)
//   TEGUM_TEST_ORDER       order of fibers: 0 forwards, 1 backwards, another number a shuffle (0)
//   -DOLD                  without cuLaunchKernel, as a driver too old would be
//   -DNO_GRAPHS            without graphs, as a driver before CUDA 12.0 would be
//   -DNO_KERNELS           without kernels, for tests that launch none
#define TEGUM_EMULATED
#include "../../src/backend/cuda/kernels/common.cuh"
#ifndef NO_KERNELS
#include "../../src/backend/cuda/kernels/all.cu"
#endif

#include <dlfcn.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

enum Result { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500, LAUNCH_FAILED = 719 };

static long setting(const char* name, long otherwise) {
    const char* value = getenv(name);
    return value ? atol(value) : otherwise;
}

static std::mutex lock;
static std::map<u64, size_t> allocated;
static size_t used = 0;

// What a launch or a wait says: a device that is lost says so from then on.
static std::atomic<long> launches(0);
static int launched(long count) {
    const long last = setting("TEGUM_TEST_LOST", -1);
    return last >= 0 && (launches += count) > last ? LAUNCH_FAILED : SUCCESS;
}

EXPORT int cuInit(unsigned) { return SUCCESS; }
EXPORT int cuDriverGetVersion(int* version) {
    *version = 12080;
    return SUCCESS;
}
EXPORT int cuDeviceGetCount(int* count) {
    *count = (int)setting("TEGUM_TEST_DEVICES", 1);
    return SUCCESS;
}
EXPORT int cuDeviceGet(int* device, int number) {
    *device = number;
    return SUCCESS;
}
EXPORT int cuDeviceGetName(char* name, int size, int) {
    snprintf(name, size, "Emulated GPU");
    return SUCCESS;
}
EXPORT int cuDeviceGetAttribute(int* value, int attribute, int) {
    // Compute capability, and the shared memory that a block may ask for.
    const int capability = (int)setting("TEGUM_TEST_CAPABILITY", 90);
    *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : attribute == 97 ? 227 * 1024 : 0;
    return SUCCESS;
}
EXPORT int cuDeviceTotalMem_v2(size_t* bytes, int) {
    *bytes = (size_t)setting("TEGUM_TEST_MEMORY", 1l << 34);
    return SUCCESS;
}
EXPORT int cuDevicePrimaryCtxRetain(void** context, int device) {
    *context = (void*)(size_t)(device + 1);
    return SUCCESS;
}
EXPORT int cuCtxSetCurrent(void* context) { return context ? SUCCESS : INVALID_VALUE; }
EXPORT int cuStreamCreate(void** stream, unsigned) {
    *stream = (void*)1;
    return SUCCESS;
}
EXPORT int cuStreamSynchronize(void*) { return launched(0); }

EXPORT int cuMemAlloc_v2(u64* address, size_t bytes) {
    std::lock_guard<std::mutex> held(lock);
    if (used + bytes > (size_t)setting("TEGUM_TEST_MEMORY", 1l << 34)) return OUT_OF_MEMORY;
    if (bytes >= (size_t)setting("TEGUM_TEST_NO_ROOM", 1l << 34)) return OUT_OF_MEMORY;
    void* memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!memory) return OUT_OF_MEMORY;
    memset(memory, 0xff, bytes);
    allocated[(u64)memory] = bytes;
    used += bytes;
    *address = (u64)memory;
    return SUCCESS;
}
EXPORT int cuMemFree_v2(u64 address) {
    std::lock_guard<std::mutex> held(lock);
    auto found = allocated.find(address);
    if (found == allocated.end()) return INVALID_VALUE;
    used -= found->second;
    allocated.erase(found);
    free((void*)address);
    return SUCCESS;
}
EXPORT int cuMemcpyHtoDAsync_v2(u64 to, const void* from, size_t bytes, void*) {
    memcpy((void*)to, from, bytes);
    return SUCCESS;
}
EXPORT int cuMemcpyDtoHAsync_v2(void* to, u64 from, size_t bytes, void*) {
    memcpy(to, (const void*)from, bytes);
    return SUCCESS;
}
EXPORT int cuMemsetD8Async(u64 to, unsigned char value, size_t bytes, void*) {
    memset((void*)to, value, bytes);
    return SUCCESS;
}

EXPORT int cuModuleLoadData(void** module, const void* image) {
    *module = (void*)image;
    return SUCCESS;
}
EXPORT int cuModuleGetFunction(void** function, void*, const char* name) {
    *function = dlsym(RTLD_DEFAULT, (std::string("emulate_") + name).c_str());
    if (!*function) {
        Dl_info own;
        if (dladdr((void*)cuInit, &own)) {
            void* library = dlopen(own.dli_fname, RTLD_NOW | RTLD_NOLOAD);
            *function = library ? dlsym(library, (std::string("emulate_") + name).c_str()) : nullptr;
        }
    }
    return *function ? SUCCESS : NOT_FOUND;
}
EXPORT int cuFuncSetAttribute(void*, int, int) { return SUCCESS; }

typedef void (*Entry)(unsigned, unsigned, size_t, unsigned, unsigned, const void*);
#ifndef OLD
EXPORT int cuLaunchKernel(void* function, unsigned blocks, unsigned, unsigned, unsigned threads, unsigned, unsigned, unsigned shared,
                          void*, void** parameters, void**) {
    if (const int lost = launched(1)) return lost;
    ((Entry)function)(blocks, threads, shared, (unsigned)setting("TEGUM_TEST_ORDER", 0), 1, parameters[0]);
    return SUCCESS;
}
#endif

#ifndef NO_GRAPHS
// A graph is its launches in the order of their dependencies, which must be a chain.
struct KernelNode {
    void* function;
    unsigned blocks, y, z, threads, thread_y, thread_z, shared;
    void **parameters, **extra, *kernel, *context;
};
struct Node {
    void* function;
    unsigned blocks, threads, shared;
    std::vector<char> arguments;
};
struct Graph {
    std::vector<std::unique_ptr<Node>> nodes;
};
// Arguments of every kernel are one structure of this size at most.
static const size_t ARGUMENTS = 32;

EXPORT int cuGraphCreate(Graph** graph, unsigned) {
    *graph = new Graph;
    return SUCCESS;
}
EXPORT int cuGraphAddKernelNode_v2(Node** node, Graph* graph, Node* const* after, size_t count, const KernelNode* asked) {
    const Node* last = graph->nodes.empty() ? nullptr : graph->nodes.back().get();
    if (count != (last ? 1u : 0u) || (last && *after != last) || asked->y != 1 || asked->extra) return INVALID_VALUE;
    const char* arguments = (const char*)asked->parameters[0];
    graph->nodes.emplace_back(new Node{asked->function, asked->blocks, asked->threads, asked->shared, {arguments, arguments + ARGUMENTS}});
    *node = graph->nodes.back().get();
    return SUCCESS;
}
EXPORT int cuGraphInstantiateWithFlags(Graph** ready, Graph* graph, unsigned long long) {
    *ready = new Graph;
    for (const auto& node : graph->nodes) (*ready)->nodes.emplace_back(new Node(*node));
    return SUCCESS;
}
EXPORT int cuGraphDestroy(Graph* graph) {
    delete graph;
    return SUCCESS;
}
EXPORT int cuGraphExecDestroy(Graph* ready) {
    delete ready;
    return SUCCESS;
}
EXPORT int cuGraphLaunch(Graph* ready, void*) {
    if (const int lost = launched((long)ready->nodes.size())) return lost;
    if (getenv("TEGUM_TEST_COUNT_GRAPHS")) fprintf(stderr, "graph of %zu launches\n", ready->nodes.size());
    for (const auto& node : ready->nodes)
        ((Entry)node->function)(node->blocks, node->threads, node->shared, (unsigned)setting("TEGUM_TEST_ORDER", 0), 1, node->arguments.data());
    return SUCCESS;
}
#endif

EXPORT int cuGetErrorName(int error, const char** name) {
    *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : error == NOT_FOUND ? "CUDA_ERROR_NOT_FOUND" : error == LAUNCH_FAILED ? "CUDA_ERROR_LAUNCH_FAILED" : "CUDA_ERROR_INVALID_VALUE";
    return SUCCESS;
}
EXPORT int cuGetErrorString(int error, const char** text) {
    *text = error == OUT_OF_MEMORY ? "out of memory" : error == NOT_FOUND ? "named symbol not found" : error == LAUNCH_FAILED ? "unspecified launch failure" : "invalid argument";
    return SUCCESS;
}
