// The check of a checked run: the first NaN or infinity of an instruction's outputs, and what its inputs looked like.
#pragma once
#include "program.h"

namespace attune {

/// Throws ERR_NONFINITE if a float output of the instruction that has just run holds NaN or infinity.
void require_finite(const Instruction& instruction);

}  // namespace attune
