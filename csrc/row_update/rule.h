// The rules of row-wise steps, as Python numbers them.
#pragma once

namespace fastpop {

enum class RowRule : int { sgd = 0, adagrad = 1, adam = 2 };

}  // namespace fastpop
