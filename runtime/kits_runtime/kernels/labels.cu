// Labels on a finer grid, straight from scores on a coarser one.
//
// One voxel at a time, and for each of its classes the eight scores around it, interpolated along z,
// then y, then x as in resample.cu; only the label is stored. Scores are (class, z, y, x) with steps
// between them; source slice -1 is the last plane of the slab before, which has steps of its own. A
// step of 0 repeats a value, so that a single background score for each class stands for a slab.

extern "C" __global__ void labels_from_scores(
    const float* slab, long long slab_class, long long slab_z, long long slab_y, long long slab_x,
    const float* last, long long last_class, long long last_y, long long last_x,
    const int* lower, const int* upper, const float* weight, int size_z, int size_y, int size_x,
    const unsigned char* label_of_class, int classes, int is_argmax, float at_least,
    unsigned char* labels) {
  const long long plane = (long long)size_y * size_x;
  FOR_EACH(voxel, size_z * plane) {
    const int z = (int)(voxel / plane);
    const int y = size_z + (int)(voxel % plane / size_x);
    const int x = size_z + size_y + (int)(voxel % size_x);
    unsigned char label = 0;
    float best = 0;
    for (int channel = 0; channel < classes; ++channel) {
      float along_x[2];
      for (int right = 0; right < 2; ++right) {
        float along_y[2];
        for (int back = 0; back < 2; ++back) {
          float along_z[2];
          for (int below = 0; below < 2; ++below) {
            const int at_z = below ? upper[z] : lower[z];
            const int at_y = back ? upper[y] : lower[y];
            const int at_x = right ? upper[x] : lower[x];
            along_z[below] =
                at_z < 0 ? last[channel * last_class + at_y * last_y + at_x * last_x]
                         : slab[channel * slab_class + at_z * slab_z + at_y * slab_y +
                                at_x * slab_x];
          }
          along_y[back] = between(along_z[0], along_z[1], weight[z]);
        }
        along_x[right] = between(along_y[0], along_y[1], weight[y]);
      }
      const float score = between(along_x[0], along_x[1], weight[x]);
      if (is_argmax) {
        // The first class is background, whose label is 0.
        if (channel && score > best) label = label_of_class[channel];
        best = channel && best > score ? best : score;
      } else if (score >= at_least) {
        label = label_of_class[channel];
      }
    }
    labels[voxel] = label;
  }
}
