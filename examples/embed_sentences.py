"""A pretrained sentence model on packed sentences: no padding, the same embeddings.

Sentences are laid end to end in a few long sequences. A document mask keeps them apart, and attnc
skips every tile that lies between two of them; positions start anew with each sentence. The model
is transformers' BERT, untouched: it is only told to use attnc for its attention.

    attnc inspect examples/embed_sentences.py:same_document --stage math --shape 1,12,2048,2048,32

Run it with `make demo`, or `attnc demo`, which is the same. It asserts that no embedding differs
from the stock model's by 1e-4, and times both.
"""

import sys

from attnc.cli.demo import document_mask, main
from attnc.cli.embedding import packed, sentences, tokenized

rows = packed(tokenized(sentences()))
same_document = document_mask(rows[0].doc)

if __name__ == "__main__":
    sys.exit(main())
