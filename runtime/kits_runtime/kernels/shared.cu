// What all kernels share. Products are never fused with sums (see sources.py), so that the host's
// float32 results come out bit for bit.

// Goes through `count` items, whatever the number of threads.
#define FOR_EACH(item, count)                                                   \
  for (long long item = blockIdx.x * (long long)blockDim.x + threadIdx.x;       \
       item < (count); item += (long long)gridDim.x * blockDim.x)

__device__ inline float between(float a, float b, float weight) { return a + weight * (b - a); }
