# The CPU-only build for machines without CMake: node-gyp makes the same build/Release/attune.node from the same native/sources.txt.
# One static library per instruction set, because gyp sets flags per target; --whole-archive keeps kernels that only register themselves.
{
  "target_defaults": {
    "cflags!": ["-fno-exceptions"],
    "cflags_cc!": ["-fno-exceptions", "-fno-rtti", "-std=gnu++20", "-std=gnu++17"],
    "cflags_cc": [
      "-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fvisibility-inlines-hidden", "-Wall", "-Wextra",
      "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-ffp-contract=fast",
    ],
  },
  "targets": [
    {
      "target_name": "attune",
      "sources": ["<!@(node scripts/sources.cjs addon core)"],
      "dependencies": ["attune_cpu_generic"],
      "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
      "defines": [
        "NAPI_VERSION=8", "NODE_ADDON_API_CPP_EXCEPTIONS_ALL", "NODE_ADDON_API_DISABLE_DEPRECATED", "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS",
      ],
      "ldflags": ["-Wl,--version-script=<(module_root_dir)/native/exports.map", "-Wl,--whole-archive"],
      "libraries": ["-Wl,--no-whole-archive", "-ldl", "-lpthread"],
      "conditions": [["target_arch=='x64'", {"dependencies": ["attune_cpu_avx2", "attune_cpu_avx512"]}]],
    },
    {
      "target_name": "attune_cpu_generic",
      "type": "static_library",
      "sources": ["<!@(node scripts/sources.cjs cpu)"],
      "defines": ["ATTUNE_ISA=generic"],
    },
  ],
  "conditions": [
    ["target_arch=='x64'", {
      "targets": [
        {
          "target_name": "attune_cpu_avx2",
          "type": "static_library",
          "sources": ["<!@(node scripts/sources.cjs cpu)"],
          "defines": ["ATTUNE_ISA=avx2"],
          "cflags_cc": ["-mavx2", "-mfma", "-mf16c"],
        },
        {
          "target_name": "attune_cpu_avx512",
          "type": "static_library",
          "sources": ["<!@(node scripts/sources.cjs cpu)"],
          "defines": ["ATTUNE_ISA=avx512"],
          "cflags_cc": [
            "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512cd", "-mfma", "-mavx2", "-mprefer-vector-width=512",
          ],
        },
      ],
    }],
  ],
}
