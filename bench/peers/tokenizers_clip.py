"""Hugging Face's tokenizers (Rust) with CLIP's rules on the vocab.json and merges.txt of a folder: prompts come as a JSON array on stdin, the CPU
time of one pass over all of them is taken, the median of nine. Prints {"version", "secondsPerPass", "checksum"}. Used by bench/tokenizer.ts."""
import json
import sys
import time

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

START, END = "<|startoftext|>", "<|endoftext|>"
folder = sys.argv[1]
prompts = json.load(sys.stdin)

tokenizer = Tokenizer(models.BPE.from_file(f"{folder}/vocab.json", f"{folder}/merges.txt", unk_token=END, end_of_word_suffix="</w>"))
tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
pattern = Regex(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
tokenizer.add_special_tokens([AddedToken(START, normalized=True), AddedToken(END, normalized=False)])
start, end = (tokenizer.token_to_id(token) for token in (START, END))
tokenizer.post_processor = processors.RobertaProcessing((END, end), (START, start), trim_offsets=False, add_prefix_space=False)

whole = [tokenizer.encode(prompt, add_special_tokens=False).ids for prompt in prompts]
tokenizer.enable_truncation(77)
tokenizer.enable_padding(length=77, pad_id=end, pad_token=END)
encode = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)


def one_pass():
    begin = time.process_time()
    for i in range(0, len(prompts), 64):
        encode(prompts[i : i + 64])
    return time.process_time() - begin


seconds = sorted(one_pass() for _ in range(9))[4]
checksum = 0
for ids in whole:
    for i in ids:
        checksum = (checksum * 31 + i + 1) % 2**40
print(json.dumps({"version": tokenizers.__version__, "secondsPerPass": seconds, "checksum": checksum}))
