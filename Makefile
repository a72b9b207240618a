PYTHON ?= python

.PHONY: docs test lint spelling

docs:
	rm -rf docs/_build docs/api/generated
	$(PYTHON) -m sphinx -W --keep-going -n -b html docs docs/_build/html
	$(PYTHON) docs/check_links.py docs/_build/html

test:
	$(PYTHON) -m pytest

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

spelling:
	$(PYTHON) -m pytest -q tests/contracts/test_spelling.py
