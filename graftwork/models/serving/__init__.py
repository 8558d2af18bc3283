"""The classifier that is trained, judged and served: this folder travels inside every serving bundle.

It imports nothing of the rest of the package, so that a bundle can be loaded where only torch, transformers,
safetensors and numpy are installed (and Pillow, where it reads pictures). A folder that `model.load` reads holds
`serving.json` (classes, pooling, lengths, head), `config.json` and the tokenizer's files as transformers writes them,
and `model.safetensors`.
"""
