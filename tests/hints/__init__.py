"""Every next step that the product prints, and a test that follows it.

`collected.py` finds the texts in the product, `following.py` reads what a text asks for, and
`test_every_hint.py` compares the texts with the tests that are marked `follows`.
"""
