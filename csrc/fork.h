// After fork(): GNU OpenMP's threads are not in the child, whose first parallel region would wait for
// them for ever. There the kernels use one thread.
#pragma once

namespace fastpop {

// Called once, when the module is loaded.
void watch_forks();

// Whether this process was forked from one that had threads.
bool has_lost_threads();

}  // namespace fastpop
