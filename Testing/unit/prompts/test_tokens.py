"""Text becomes numbers by a closed vocabulary."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from MedXlateCore.errors import UsageError
from MedXlateCore.prompts import tokens
from MedXlateCore.prompts.wordings import vocabulary_texts


def test_numbers_are_split_into_digits():
    assert tokens.words("T1, TE 12.5 ms") == ["t", "1", ",", "te", "1", "2", ".", "5", "ms"]


def test_a_text_starts_and_ends_and_can_be_read_again():
    ids = tokens.encode("FLAIR MR image of the brain. TE 120.0 ms.")
    assert (ids[0], ids[-1]) == (tokens.START, tokens.END)
    assert tokens.UNKNOWN not in ids
    assert tokens.decode(ids) == "flair mr image of the brain . te 1 2 0 . 0 ms ."


def test_every_word_of_every_wording_is_in_the_vocabulary():
    for text in vocabulary_texts():
        assert tokens.UNKNOWN not in tokens.encode(text)


def test_a_word_outside_the_vocabulary_is_unknown():
    assert tokens.encode("Zyxomma") == [tokens.START, tokens.UNKNOWN, tokens.END]


def test_the_vocabulary_is_the_same_in_every_process():
    program = "from MedXlateCore.prompts.tokens import vocabulary_sha256 as v; print(v())"
    other = subprocess.run(  # string hashes, and so the order of sets, differ between processes
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == tokens.vocabulary_sha256()
    assert len(set(tokens.VOCABULARY)) == tokens.VOCABULARY_SIZE < 49_408


def test_a_text_longer_than_the_context_is_refused():
    assert len(tokens.encode("image " * 6, context=8)) == 8
    with pytest.raises(UsageError, match="MX-TXT-002"):
        tokens.encode("image " * 7, context=8)


def test_a_batch_is_padded():
    batch = tokens.encode_batch(["image", "MR image of the brain"])
    assert batch.shape == (2, 7)
    assert batch.dtype == np.int64
    assert (batch[0, 3:] == tokens.PAD).all()
    assert tokens.encode_batch(["image"], context=16, full=True).shape == (1, 16)
