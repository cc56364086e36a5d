// Windows cut from rows of a region, and their scores laid over each other again.

// Patches (window, channel, z, y, x): channel k of window n begins at row rows[n * channels + k],
// all its channels at starts[2 n] and starts[2 n + 1] along y and x. Every voxel lies inside.
extern "C" __global__ void gather(const float* values, int size_y, int size_x, const int* rows,
                                  const int* starts, int windows, int channels, int depth,
                                  int height, int width, float* patches) {
  const long long plane = (long long)height * width;
  FOR_EACH(voxel, windows * channels * depth * plane) {
    const long long slice = voxel / plane;
    const int channel = (int)(slice / depth);
    const int window = channel / channels;
    const int z = rows[channel] + (int)(slice % depth);
    const int y = starts[2 * window] + (int)(voxel % plane / width);
    const int x = starts[2 * window + 1] + (int)(voxel % width);
    patches[voxel] = values[((long long)z * size_y + y) * size_x + x];
  }
}

// Adds scores (window, class, z, y, x) times weights (z, y, x) to sums (class, z, y, x), and the
// weights to counts (z, y, x). Rows of places are (y, x, y_from, y_to, x_from, x_to): where a window
// begins and where it answers. Sums begin at its slice z_from. Each voxel adds windows in their
// order, so sums do not depend on how the work is divided.
extern "C" __global__ void blend(const float* scores, const float* weights, const int* places,
                                 int windows, int classes, int depth, int height, int width,
                                 int z_from, int size_z, int size_y, int size_x, float* sums,
                                 float* counts) {
  const long long plane = (long long)size_y * size_x;
  const long long whole = size_z * plane;
  const long long patch = (long long)depth * height * width;
  FOR_EACH(voxel, whole) {
    const int z = z_from + (int)(voxel / plane);
    const int y = (int)(voxel % plane / size_x);
    const int x = (int)(voxel % size_x);
    for (int window = 0; window < windows; ++window) {
      const int* place = places + 6 * window;
      if (y < place[2] || y >= place[3] || x < place[4] || x >= place[5]) continue;
      const long long inside = ((long long)z * height + y - place[0]) * width + x - place[1];
      const float weight = weights[inside];
      counts[voxel] += weight;
      for (int label = 0; label < classes; ++label) {
        sums[label * whole + voxel] +=
            scores[((long long)window * classes + label) * patch + inside] * weight;
      }
    }
  }
}
