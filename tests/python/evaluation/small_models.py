"""Language models of transformers, small and untrained, with a tokenizer of bytes."""

from contextlib import contextmanager

import numpy as np
import torch

TEXT = "The quick brown fox jumps over the lazy dog, and 中文 too. " * 2
CONTEXT = 32
CLASSES = 264
"""Of which 257 are tokens: the 256 bytes, and one that begins a text."""


def tokenizer(*, beginning=False, swapped=False, merges=()):
    """Bytes as tokens; merges of two make another one, in the place of the last."""
    import tokenizers
    import transformers

    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: number for number, letter in enumerate(alphabet)}
    if swapped:
        vocab[alphabet[0]], vocab[alphabet[1]] = vocab[alphabet[1]], vocab[alphabet[0]]
    vocab["th"] = 256
    own = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=list(merges)))
    own.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = tokenizers.decoders.ByteLevel()
    found = transformers.PreTrainedTokenizerFast(tokenizer_object=own, bos_token="!")
    if beginning:
        number = vocab["!"]
        found.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single="! $A", special_tokens=[("!", number)]
        )
    return found


def llama(seed=0, *, classes=CLASSES, noise=0.0, **options):
    """A Llama of two layers; with noise in its weights that of the seed, a little off."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=classes,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        **options,
    )
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight += noise * torch.randn(weight.shape, generator=generator)
    return model


def saved(model, own_tokenizer, folder):
    """The model as a directory."""
    model.save_pretrained(folder)
    own_tokenizer.save_pretrained(folder)
    return str(folder)


@torch.inference_mode()
def logits(model, window):
    """Of the scored rows, as transformers gives them."""
    found = model(torch.from_numpy(window.inputs)[None]).logits[0, window.first :]
    return np.asarray(found.float())


@contextmanager
def one_thread():
    """Models this small wait for threads most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def largest_file(size):
    """No file grows beyond so many bytes, as on a disk that is full."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
