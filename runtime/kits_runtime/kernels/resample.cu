// Values of a box of a model's grid from the scan's voxels, clipped and scaled on the way.
//
// One voxel of the box at a time. Each axis has a lower and an upper source voxel and the weight of
// the upper one; interpolation goes along z, then y, then x, as a + weight * (b - a), which is the
// order and the rounding of resample.py. Then each row of `maps` (low, high, origin, gain, offset)
// is applied: clip to low and high, then (value - origin) * gain + offset.

template <typename Voxel>
__device__ void resample(const Voxel* source, long long step_z, long long step_y, long long step_x,
                         const int* lower, const int* upper, const float* weight,
                         int size_z, int size_y, int size_x,
                         const float* maps, int map_count, float* target) {
  const long long plane = (long long)size_y * size_x;
  FOR_EACH(voxel, size_z * plane) {
    // Taps of the three axes lie behind each other.
    const int z = (int)(voxel / plane);
    const int y = size_z + (int)(voxel % plane / size_x);
    const int x = size_z + size_y + (int)(voxel % size_x);
    float along_x[2];
    for (int right = 0; right < 2; ++right) {
      const Voxel* column = source + (right ? upper[x] : lower[x]) * step_x;
      float along_y[2];
      for (int back = 0; back < 2; ++back) {
        const Voxel* line = column + (back ? upper[y] : lower[y]) * step_y;
        along_y[back] = between((float)line[lower[z] * step_z], (float)line[upper[z] * step_z],
                                weight[z]);
      }
      along_x[right] = between(along_y[0], along_y[1], weight[y]);
    }
    float value = between(along_x[0], along_x[1], weight[x]);
    for (int map = 0; map < map_count; ++map) {
      const float* row = maps + 5 * map;
      value = value < row[0] ? row[0] : value;
      value = value > row[1] ? row[1] : value;
      value = (value - row[2]) * row[3] + row[4];
    }
    target[voxel] = value;
  }
}

#define RESAMPLE(name, Voxel)                                                                     \
  extern "C" __global__ void name(                                                                \
      const Voxel* source, long long step_z, long long step_y, long long step_x,                  \
      const int* lower, const int* upper, const float* weight, int size_z, int size_y,            \
      int size_x, const float* maps, int map_count, float* target) {                              \
    resample<Voxel>(source, step_z, step_y, step_x, lower, upper, weight, size_z, size_y, size_x, \
                    maps, map_count, target);                                                     \
  }

RESAMPLE(resample_int16, short)
RESAMPLE(resample_float32, float)
