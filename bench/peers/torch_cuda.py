"""PyTorch on the same GPU, row by row of native/bench/device.cc: cuBLAS by F.linear, cuDNN by channels-last conv2d, SDPA's flash attention, eager norms, fused AdamW, and
the preference loss eager and compiled. Prints {"torch": version, "rows": [{"name", "microseconds"}]}; a row that fails says why instead. Needs torch with CUDA; the
training step needs diffusers too. Used by native/gpu-check.sh where Python has them."""
import json
import sys

import torch
import torch.nn.functional as F

B = 16  # 8 pairs, as in device.cc
DEVICE, BF16, F32 = "cuda", torch.bfloat16, torch.float32
rows = []


def randn(*shape, dtype=BF16, grad=False):
    return torch.randn(*shape, device=DEVICE, dtype=dtype).requires_grad_(grad)


def row(name, make):
    """`make` returns a function that does the work once; median of 9 rounds, each of enough repeats to take 2 ms."""
    try:
        work = make()
        for _ in range(3):
            work()
        torch.cuda.synchronize()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

        def rounds(repeats):
            begin.record()
            for _ in range(repeats):
                work()
            end.record()
            end.synchronize()
            return begin.elapsed_time(end) * 1e3 / repeats

        repeats = int(min(200, max(1, 2000 / max(rounds(1), 1e-3))))
        rows.append({"name": name, "microseconds": sorted(rounds(repeats) for _ in range(9))[4]})
    except Exception as error:  # a peer that cannot run a row is a missing number, not a failure of ours
        rows.append({"name": name, "error": repr(error)[:200]})
    torch.cuda.empty_cache()


def linear(name, m, n, k):
    x, w, b, dy = randn(m, k), randn(n, k), randn(n), randn(m, n)
    row(f"linear {name}", lambda: lambda: F.linear(x, w, b))
    row(f"linear {name}, d input", lambda: lambda: dy @ w)
    row(f"linear {name}, d weight", lambda: lambda: dy.t() @ x)


def conv(size, i, o, k, stride):
    to, pad = size // stride, (k - 1) // 2
    x = randn(B, i, size, size).to(memory_format=torch.channels_last)
    w = randn(o, i, k, k).to(memory_format=torch.channels_last)
    b, dy = randn(o), randn(B, o, to, to).to(memory_format=torch.channels_last)
    name = f"conv {k}x{k}{' s2 ' if stride > 1 else ' '}{size}^2 {i} to {o}"
    back = lambda mask: lambda: torch.ops.aten.convolution_backward(dy, x, w, None, [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], 1, mask)
    row(name, lambda: lambda: F.conv2d(x, w, b, stride, pad))
    row(name + ", d input", lambda: back([True, False, False]))
    row(name + ", d weight", lambda: back([False, True, False]))


def attention(name, n, m, heads, d):
    q, k, v = (randn(B, heads, s, d, grad=True) for s in (n, m, m))
    dy = randn(B, heads, n, d)
    row(f"attention {name}", lambda: lambda: F.scaled_dot_product_attention(q.detach(), k.detach(), v.detach()))

    def backward():
        y = F.scaled_dot_product_attention(q, k, v)
        return lambda: torch.autograd.grad(y, (q, k, v), dy, retain_graph=True)

    row(f"attention {name}, backward", backward)


def group_norm(size, c):
    x = randn(B, c, size, size, grad=True)
    gamma, beta, dy = randn(c, grad=True), randn(c, grad=True), randn(B, c, size, size)
    name = f"group norm + SiLU {size}^2 x {c}"
    row(name, lambda: lambda: F.silu(F.group_norm(x.detach(), 32, gamma.detach(), beta.detach())))

    def backward():
        y = F.silu(F.group_norm(x, 32, gamma, beta))
        return lambda: torch.autograd.grad(y, (x, gamma, beta), dy, retain_graph=True)

    row(name + ", backward", backward)


def dpo_loss(prediction, reference, target, beta=5000.0):
    error = lambda e: (e - target).pow(2).mean(dim=[1, 2, 3])
    winner, loser = error(prediction).chunk(2)
    r_winner, r_loser = error(reference).chunk(2)
    return -F.logsigmoid(-0.5 * beta * ((winner - loser) - (r_winner - r_loser))).mean()


def preference(name, fn):
    p = randn(128, 4, 128, 128, dtype=F32, grad=True)
    r, t = randn(128, 4, 128, 128, dtype=F32), randn(128, 4, 128, 128, dtype=F32)
    row(name, lambda: lambda: torch.autograd.grad(fn(p, r, t), p))


def main():
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = True
    for name, m, n, k in [("4096x4096x4096", 4096, 4096, 4096), ("8192x8192x8192", 8192, 8192, 8192), ("to_q 64^2 x 320", B * 4096, 320, 320),
                          ("to_q 32^2 x 640", B * 1024, 640, 640), ("to_q 16^2 x 1280", B * 256, 1280, 1280), ("ff1 64^2 x 320", B * 4096, 2560, 320),
                          ("ff2 64^2 x 320", B * 4096, 320, 1280), ("ff1 32^2 x 640", B * 1024, 5120, 640)]:
        linear(name, m, n, k)
    for shape in [(64, 320, 320, 3, 1), (32, 640, 640, 3, 1), (16, 1280, 1280, 3, 1), (8, 1280, 1280, 3, 1), (8, 2560, 1280, 3, 1), (64, 640, 320, 3, 1),
                  (64, 320, 320, 3, 2), (64, 4, 320, 3, 1), (64, 320, 4, 3, 1), (64, 960, 320, 1, 1)]:
        conv(*shape)
    for shape in [("self 4096, 8 x 40", 4096, 4096, 8, 40), ("self 1024, 8 x 80", 1024, 1024, 8, 80), ("self 256, 8 x 160", 256, 256, 8, 160),
                  ("cross 4096 to 77, 8 x 40", 4096, 77, 8, 40), ("cross 1024 to 77, 8 x 80", 1024, 77, 8, 80), ("SDXL self 4096, 10 x 64", 4096, 4096, 10, 64),
                  ("self 4096, 8 x 128", 4096, 4096, 8, 128)]:
        attention(*shape)
    for size, c in [(64, 320), (32, 640), (16, 1280), (64, 960)]:
        group_norm(size, c)
    t, wide = randn(B, 4096, 320), randn(B, 4096, 2560)
    gamma, beta = randn(320), randn(320)
    row("layer norm 64^2 x 320", lambda: lambda: F.layer_norm(t, (320,), gamma, beta))
    row("geglu 64^2 x 1280", lambda: lambda: (lambda h: h[0] * F.gelu(h[1]))(wide.chunk(2, -1)))
    row("add 64^2 x 320", lambda: lambda: t + t)
    parameter = torch.nn.Parameter(randn(100_000_000, dtype=F32))
    parameter.grad = randn(100_000_000, dtype=F32)
    row("AdamW 100 M parameters", lambda: torch.optim.AdamW([parameter], lr=1e-5, fused=True).step)
    preference("preference loss forward + backward, 64 pairs 4x128x128, eager", dpo_loss)
    preference("preference loss forward + backward, 64 pairs 4x128x128, compiled", torch.compile(dpo_loss))
    training_step()
    print(json.dumps({"torch": torch.__version__, "cudnn": torch.backends.cudnn.version(), "device": torch.cuda.get_device_name(), "rows": rows}))


def training_step():
    """Diffusion-DPO on an SD 1.5 UNet with random weights, bf16 autocast, eager SDPA: 4 and 8 pairs; peak memory beside the time."""
    try:
        from diffusers import UNet2DConditionModel
    except ImportError as error:
        rows.append({"name": "Diffusion-DPO step of SD 1.5, eager", "error": repr(error)})
        return
    config = json.load(open(f"{sys.path[0]}/../configs/sd15-unet.json"))
    policy = UNet2DConditionModel.from_config(config).to(DEVICE)
    reference = UNet2DConditionModel.from_config(config).to(DEVICE, BF16).requires_grad_(False)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-5, fused=True)
    for pairs in (4, 8):
        x, noise = randn(2 * pairs, 4, 64, 64), randn(2 * pairs, 4, 64, 64)
        states, t = randn(2 * pairs, 77, 768), torch.randint(0, 1000, (2 * pairs,), device=DEVICE)

        def step():
            with torch.no_grad():
                r = reference(x, t, states).sample
            with torch.autocast(DEVICE, BF16):
                p = policy(x, t, states).sample
            dpo_loss(p.float(), r.float(), noise.float()).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        torch.cuda.reset_peak_memory_stats()
        row(f"Diffusion-DPO step of SD 1.5, {pairs} pairs, eager", lambda: step)
        rows[-1]["bytes"] = torch.cuda.max_memory_allocated()


if __name__ == "__main__":
    main()
