"""The page in Chromium: each view and each act, as `docs/page.md` promises them."""
