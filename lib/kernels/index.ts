/** `attune/kernels`: the kernels of UNet training on their own, on typed arrays and on tensors that stay on the device.
 *
 *    const kernels = Kernels.open(await openDevice("auto"));
 *    const { y } = await kernels.run(conv2d, { x, weight, bias }, { padding: 1 });
 *    const { x: dx, weight: dw } = await kernels.backward(conv2d, { x, weight, bias }, { y: dy }, { padding: 1 });
 */

export { addNoise, normalNoise, type StepCoefficients, schedulerStep, velocity } from "./diffusion.js";
export type { Kernel, Operand } from "./kernel.js";
export { activation, attention, avgPool2d, conv2d, geglu, groupNorm, layerNorm, linear, matmul, softmax, upsampleNearest } from "./layers.js";
export { DeviceTensor, type KernelInput, Kernels } from "./runner.js";
export { type AdamWStep, adamW, ema, preferenceLoss } from "./training.js";
