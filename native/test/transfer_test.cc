// Weights between files and arenas, without Node: values and axes in every piece of a tensor, files that end early, cancelling from another thread.
// Which bits each dtype gives is checked against TypeScript's conversion in test/integration/session-load.test.ts.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <future>

#include "core/session.h"
#include "expect.h"

using namespace attune;

/// A file without a name, of these bytes.
struct TemporaryFile {
  std::FILE* const file = std::tmpfile();
  const int fd = file ? fileno(file) : -1;
  TemporaryFile(const void* data, size_t bytes) {
    if (pwrite(fd, data, bytes, 0) != ssize_t(bytes)) std::abort();
  }
  ~TemporaryFile() { std::fclose(file); }
};

struct Outcome {
  std::promise<Error> settled;
  Session::Done done() {
    return [this](const Error* e) { settled.set_value(e ? *e : Error("", "")); };
  }
  Error wait() { return settled.get_future().get(); }
};

static Program arena_of(int64_t bytes) {
  Program p;
  p.arenas = {{"scratch", 0}, {"w", bytes}};
  return p;
}

static TensorForm form_of(DType outside, DType inside, int64_t outer, int64_t rows, int64_t columns) {
  TensorForm f;
  f.outside = outside, f.inside = inside, f.outer = outer, f.rows = rows, f.columns = columns;
  return f;
}

static std::shared_ptr<FileRange> range_of(const TemporaryFile& file, int64_t offset, int64_t bytes) {
  return std::make_shared<FileRange>("weights", file.fd, offset, bytes);
}

static const auto never = [] { return std::make_shared<std::atomic<bool>>(false); };

/// [outer, rows, columns] of doubles that float holds exactly, behind 8 other bytes.
static void there_and_back(int64_t outer, int64_t rows, int64_t columns) {
  const TensorForm form = form_of(DType::f64, DType::f32, outer, rows, columns);
  std::vector<double> stored(size_t(1 + form.elements()));
  for (size_t i = 0; i < stored.size(); i++) stored[i] = double(i);
  const TemporaryFile file(stored.data(), stored.size() * 8);
  Session s({2, "", 64 << 20});
  s.compile(arena_of(form.inside_bytes()));
  Outcome loaded, read, back;
  std::vector<float> inside(size_t(form.elements()));
  std::vector<double> outside(size_t(form.elements()));
  s.load("w", 0, form, range_of(file, 8, form.outside_bytes()), never(), loaded.done());
  s.read("w", 0, form.inside_bytes(), inside.data(), read.done());
  s.store("w", 0, form, outside.data(), back.done());
  expect(loaded.wait().code.empty() && read.wait().code.empty() && back.wait().code.empty(), "a tensor moves both ways");
  bool turned = true;
  for (int64_t i = 0; i < form.elements(); i++) {
    const int64_t o = i / (rows * columns), r = i / columns % rows, c = i % columns;
    turned &= inside[size_t((o * columns + c) * rows + r)] == float(i + 1) && outside[size_t(i)] == double(i + 1);
  }
  expect(turned, "rows and columns change places inside, and back outside");
}

static void files_that_end_early() {
  const std::vector<char> zeros(3 << 20);
  const TemporaryFile file(zeros.data(), zeros.size());
  Session s({2, "", 64 << 20});
  s.compile(arena_of(8 << 20));
  const TensorForm form = form_of(DType::f32, DType::f32, 1, 1, 1 << 20);
  Outcome shorter, sound;
  s.load("w", 0, form, range_of(file, 100, form.outside_bytes()), never(), shorter.done());
  s.load("w", 0, form_of(DType::f32, DType::f32, 1, 1, 1 << 19), range_of(file, 0, 2 << 20), never(), sound.done());
  const Error e = shorter.wait();
  expect(e.code == "ERR_DATA" && e.file == "weights" && e.offset == 3 << 20, "a file that ends early is an error that names file and offset");
  expect(std::string(e.what()) == "expected 4194304 bytes, received " + std::to_string((3 << 20) - 100) + " before the file ended", "and both sizes");
  expect(sound.wait().code.empty(), "the next load is untouched");
}

static void cancelling() {
  const char none = 0;
  const TemporaryFile file(&none, 1);
  const TensorForm form = form_of(DType::f64, DType::f32, 1, 1, 1 << 27);  // 1 GiB, all but a byte of it a hole
  if (ftruncate(file.fd, form.outside_bytes()) != 0) std::abort();
  auto s = std::make_unique<Session>(Session::Options{2, "", int64_t(1) << 40});
  s->compile(arena_of(form.inside_bytes()));
  const auto cancelled = never();
  Outcome stopped, dropped;
  s->load("w", 0, form, range_of(file, 0, form.outside_bytes()), cancelled, stopped.done());
  cancelled->store(true);
  expect(stopped.wait().code == "ERR_ABORTED", "a cancelled load ends");
  s->load("w", 0, form, range_of(file, 0, form.outside_bytes()), never(), dropped.done());
  s.reset();
  expect(dropped.wait().code == "ERR_ABORTED", "so does one whose session goes");
}

int main() {
  there_and_back(3, 5, 9);
  there_and_back(70, 33, 9);     // pieces of many matrices, the last one short
  there_and_back(2, 9001, 9);    // a matrix larger than a piece
  there_and_back(1, 1, 200003);  // pieces of a plain tensor
  there_and_back(5, 7, 0);
  files_that_end_early();
  cancelling();
  std::printf(failures ? "transfer: %d failures\n" : "transfer: ok\n", failures);
  return failures ? 1 : 0;
}
