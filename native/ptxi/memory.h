// What the families that touch memory share.
#pragma once
#include "lanes.h"

namespace attune {
namespace ptxi {

/// The space in the opcode, if there is one.
Space take_space(Build& b, Space otherwise);
/// Modifiers of order, scope and cache.
void take_hints(Build& b);
/// Shared memory is watched in pieces of the narrowest access.
void note_grain(Build& b, int bytes);

}  // namespace ptxi
}  // namespace attune
