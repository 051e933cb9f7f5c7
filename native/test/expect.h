// What the tests of sessions share: a law that does not hold is printed and counted, and the program goes on to the next.
#pragma once
#include <cstdio>

static int failures = 0;

static void expect(bool holds, const char* law) {
  if (holds) return;
  std::printf("FAIL %s\n", law);
  failures++;
}
