"""Short texts as sets of hashed groups of words and letters; any bytes are a text, and long ones are cut."""

from __future__ import annotations

import tensorflow as tf

from evergreen import settings
from transform import categories, columns

MAX_BYTES = 4096
"""How much of a text is looked at: what is longer is not short, and one huge cell must not slow all others down."""


def terms(feature: settings.Text, column: tf.Tensor) -> tf.Tensor:
    """Makes the buckets of a text's terms.

    Args:
        feature: Which groups, how many buckets.
        column: Strings [batch]; "" is missing.

    Returns:
        int64 [batch, max_terms], every bucket of a row once, `columns.NO_CATEGORY` behind them.
    """
    text = tf.strings.unicode_transcode(tf.strings.substr(column, 0, MAX_BYTES), "UTF-8", "UTF-8", errors="replace")
    if feature.lower_case:
        text = tf.strings.lower(text, encoding="utf-8")
    # Letters, marks and digits of every script make a word; everything else divides words.
    words = tf.strings.split(tf.strings.regex_replace(text, r"[^\pL\pM\pN]+", " "))
    groups = []
    if feature.words:
        groups.append(tf.strings.ngrams(words, ngram_width=tuple(range(1, feature.words + 1)), separator=" "))
    if feature.characters:
        groups.append(_letters(words, feature.characters))
    width = feature.max_terms
    share = -(-width // len(groups))
    matrix = tf.concat([group.to_tensor(default_value="", shape=[None, share]) for group in groups], axis=1)
    matrix = tf.ensure_shape(matrix[:, :width], [None, width])
    return categories.sized(columns.distinct(categories.bucket(matrix, feature.buckets)), feature.buckets)


def _letters(words: tf.RaggedTensor, length: int) -> tf.RaggedTensor:
    """Makes the groups of letters of each text, with its words held apart by single blanks, a blank at either end."""
    joined = tf.strings.join([" ", tf.strings.reduce_join(words, axis=-1, separator=" "), " "])
    letters = tf.strings.unicode_split(joined, "UTF-8")
    groups = tf.strings.ngrams(letters, ngram_width=length, separator="")
    # Told apart from a word of the same letters.
    return groups.with_values(tf.strings.join(["\x1f", groups.values]))
