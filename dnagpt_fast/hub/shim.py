"""What a saved folder needs so that a process that did not import this package can load it, or learn how.

`auto_map` in config.json and tokenizer_config.json names a module of the folder that imports this package: with
`trust_remote_code=True` transformers, and what is built on it (vLLM, TRL, servers), load the folder without knowing of
DNAGPT, and without the package they say which one to install. With `import dnagpt_fast.hub` the module is not used.
"""

from pathlib import Path

from dnagpt_fast.output_files import whole

MODULE = "modeling_dnagpt"
AUTO_MAP = {
    "AutoConfig": f"{MODULE}.DNAGPTConfig",
    "AutoModel": f"{MODULE}.DNAGPTModel",
    "AutoModelForCausalLM": f"{MODULE}.DNAGPTForCausalLM",
    "AutoModelForSequenceClassification": f"{MODULE}.DNAGPTForSequenceClassification",
    "AutoModelForTokenClassification": f"{MODULE}.DNAGPTForTokenClassification",
}
TOKENIZER_AUTO_MAP = {"AutoTokenizer": [f"{MODULE}.DNAGPTTokenizer", None]}
SOURCE = '''"""Loads DNAGPT for `trust_remote_code=True`. The code is a package: pip install "dnagpt-fast[hf]"."""

from dnagpt_fast.hub import (
    DNAGPTConfig,
    DNAGPTForCausalLM,
    DNAGPTForSequenceClassification,
    DNAGPTForTokenClassification,
    DNAGPTModel,
    DNAGPTTokenizer,
)
'''
CARD = """---
library_name: transformers
pipeline_tag: text-generation
tags: [dna, genomics, dnagpt]
---

# A DNAGPT model

A generative model of DNA sequences over 6-mer tokens ([DNAGPT](https://arxiv.org/abs/2307.05628)), saved by
dnagpt-fast.

```
pip install "dnagpt-fast[hf]"
```

```python
import dnagpt_fast.hub  # makes the model known to transformers; no remote code is run
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "path or name of this model"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
prompt = tokenizer("<R>ACGTTGACGGATTACCA", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=20)[0]))
```

Without the import line, `trust_remote_code=True` does the same. Text is upper-case A C G T N after a species token
(`<R>` human); other letters become the unknown token. Data, training and limits of this very model: to be added by
whoever publishes it.
"""


def write_beside(folder: str | Path) -> None:
    """The module, written anew, and the model card, where there is no README.md yet."""
    folder = Path(folder)
    texts = {f"{MODULE}.py": SOURCE}
    if not (folder / "README.md").exists():
        texts["README.md"] = CARD
    for name, text in texts.items():
        with whole(folder / name) as temporary:
            temporary.write_text(text)
