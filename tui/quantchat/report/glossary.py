"""The terms of a report, for readers who have only the report."""

from __future__ import annotations

from quantchat.document.document import Column, Section, cells, table

_TERMS = (
    ("A, B", "the left and the right variant; B ÷ A is a ratio of their figures"),
    ("95 % interval", "the ratios that the measurement is compatible with; if it contains 1, no"
     " difference is shown"),
    ("detectable", "the smallest true difference that a measurement like this one shows in four of"
     " five cases"),
    ("TTFT", "time to first token: from the prompt's arrival until the first output token"),
    ("ITL", "inter-token latency: from one output token to the next; p95: 95 % are at or below"),
    ("TPOT", "time per output token: (last token − first token) ÷ (tokens − 1)"),
    ("decode throughput", "1000 ÷ TPOT in ms, in tokens per second (tok/s)"),
    ("prefill", "computing the prompt, before the first output token"),
    ("KV cache", "keys and values of all tokens so far, so that they are not computed again"),
    ("one at a time", "one variant decodes while the other waits: speeds that may be quoted"),
    ("together", "both variants decode at once and share the machine (contended)"),
    ("perplexity", "exp(mean negative log-likelihood) of a text's tokens; less is better"),
    ("KLD", "Kullback-Leibler divergence of the variant's predictions from the reference's, mean"
     " over the tokens, in nats; 0: the same predictions"),
    ("noise floor", "how far the reference differs from itself when it runs with another attention"
     " implementation or dtype"),
    ("top-1 agreement", "share of tokens at which variant and reference predict the same token"),
    ("divergence", "the first output token at which two greedy answers differ"),
    ("–", "not known; never 0"),
)  # fmt: skip


def glossary() -> Section:
    """Return the section at the end of a report that defines its terms."""
    columns = (Column("term", role="heading"), Column("meaning"))
    terms = table("", columns, [cells(term) for term in _TERMS])
    return Section("glossary", "Terms", (terms,), numbered=False)
