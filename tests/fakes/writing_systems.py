"""Text of many writing systems."""

from __future__ import annotations

WRITTEN = {
    "Hindi": "हिन्दी में लिखा हुआ वाक्य, क्षत्रिय",
    "Tamil": "தமிழ் மொழியில் ஸ்ரீ எழுதியது",
    "Thai": "สวัสดีครับ น้ำ กำลัง",
    "Lao": "ສະບາຍດີ ນ້ຳ",
    "Khmer": "ភាសាខ្មែរ ស្រី",
    "Burmese": "မြန်မာဘာသာ ကြောင့်",
    "Tibetan": "བོད་སྐད་ བརྒྱད",
    "Persian": "می\u200cخواهم کتاب\u200cها",
    "Arabic": "العَرَبِيَّة السلام",
    "Hebrew": "שָׁלוֹם עֲלֵיכֶם",
    "accents": "cafe\u0301 n\u0303 x\u0302 Vie\u0323\u0302t",
    "Hangul": "\u1112\u1161\u11ab\u1100\u1173\u11af 한글",
    "family": "👨\u200d👩\u200d👧\u200d👦 👩\u200d💻",
    "hearts": "❤\ufe0f ☺\ufe0f 1\ufe0f\u20e3",
    "flags": "🇫🇷 🇯🇵 🏴\u200d☠\ufe0f",
    "skins": "👍🏽 🤷🏿\u200d♂\ufe0f",
    "CJK": "日本語の文章、中文、한국어",
    "signs": "☰ 𝍠 ä́ 〮 ẛ̣",
    "letters": "plain words",
    "hidden": "be\u200bfore\ufeff\U000e0041 af\u00adter",
}
"""Of each script what its readers write; what is hidden comes with its marks."""
