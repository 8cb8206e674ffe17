"""Receipts and invoices on 256 pixels (four tiles and the whole): items with prices, a total, dates, a number."""

from __future__ import annotations

from functools import partial
from random import Random

from .ask import ask
from .canvas import Canvas, text_width
from .material import Scene, Turn
from .scene import yes_no
from .things import RGB
from .words import GOODS, SHOPS, random_word

PAPER = 256
MARGIN = 14
INKS: tuple[RGB, ...] = ((10, 10, 12), (36, 36, 60), (50, 40, 36))


def money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def draw_document(rng: Random, level: float) -> Scene:
    invoice = rng.random() < 0.5
    count = 2 + rng.randint(0, round((1 if invoice else 2) * level))
    items = rng.sample(GOODS, count)
    prices = [rng.choice((rng.randint(5, 99) * 10, rng.randint(1, 19) * 50)) for _ in items]
    shop = f"{random_word(rng, 3, 6)} {rng.choice(SHOPS)}"
    canvas = Canvas(rng, PAPER)
    ink = rng.choice(INKS)
    rows: list[tuple[str, str]] = []
    head: dict[str, str] = {}
    if invoice:
        number = str(rng.randint(100, 9999))
        issued, due = _dates(rng)
        rows += [("INVOICE", number), ("INVOICE DATE", issued), ("DUE DATE", due)]
        head = {"number": number, "issue_date": issued, "due_date": due}
    rows += [(item, money(price)) for item, price in zip(items, prices, strict=True)]
    rows.append(("TOTAL", money(sum(prices))))
    _write(rng, canvas, shop, rows, ink)
    more = partial(_turns, items=items, prices=prices, shop=shop, head=head)
    turns = more(rng)
    return Scene("document", (canvas.finish(),), None, turns, tuple(canvas.marks), "auto", more)


def _dates(rng: Random) -> tuple[str, str]:
    """Two different dates of one style, the second later."""
    month, year = rng.randint(1, 10), rng.randint(2018, 2029)
    first = f"{rng.randint(1, 28):02d}/{month:02d}/{year}"
    return first, f"{rng.randint(1, 28):02d}/{month + rng.randint(1, 2):02d}/{year}"


def _write(rng: Random, canvas: Canvas, shop: str, rows: list[tuple[str, str]], ink: RGB) -> None:
    """The shop's name on top, then one row a line: a key at the left, a value at the right, a rule above the total."""
    step = min(34.0, (PAPER - 2 * MARGIN - 30) / len(rows))
    size = 19 if any(len(value) > 8 for _, value in rows) else rng.randint(20, 23)
    y = MARGIN + rng.uniform(6, 12)
    canvas.centred(PAPER / 2, y, shop, 22, ink, bold=True)
    y += 30
    for key, value in rows:
        if key == "TOTAL":
            canvas.box(MARGIN, y - step / 2 + 1, PAPER - MARGIN, y - step / 2 + 2.5, ink)
        own = min(size, 17) if key == "INVOICE DATE" else size
        canvas.text(MARGIN, y, key, own, ink, bold=key == "TOTAL")
        canvas.text(PAPER - MARGIN - text_width(value, size), y, value, size, ink)
        y += step


def _turns(rng: Random, items: list[str], prices: list[int], shop: str, head: dict[str, str]) -> tuple[Turn, ...]:
    """head: what an invoice has on top, by the question for it; nothing of a receipt."""
    listed = ", ".join(f"{item} {money(price)}" for item, price in zip(items, prices, strict=True)) + "."
    turns = [Turn(ask(rng, key), value, key) for key, value in head.items()]
    turns += [
        Turn(ask(rng, "total"), money(sum(prices)), "total"),
        Turn(ask(rng, "count_items"), str(len(items)), "count_items"),
        Turn(ask(rng, "shop"), shop, "shop"),
    ]
    if rng.random() < 0.5:
        turns.append(Turn(ask(rng, "list_items"), listed, "list_items"))
    what = "an invoice" if head else "a receipt"
    if rng.random() < 0.1:
        turns.append(Turn(ask(rng, "sort"), what, "sort"))
    if rng.random() < 0.25:
        told = f"{what.capitalize()} from {shop} with {len(items)} items and a total of {money(sum(prices))}."
        turns.append(Turn(ask(rng, "describe"), told, "describe_document"))
    if rng.random() < 0.3:
        turns.append(Turn(ask(rng, "document_type"), what, "document_type"))
    for index in rng.sample(range(len(items)), 2):
        turns.append(Turn(ask(rng, "price", item=items[index]), money(prices[index]), "price"))
    other = rng.choice([item for item in GOODS if item not in items])
    yes = rng.random() < 0.5
    item = rng.choice(items) if yes else other
    turns.append(Turn(ask(rng, "is_bought", item=item), yes_no(yes), "is_bought"))
    if rng.random() < 0.15:
        turns.append(Turn(ask(rng, "price", item=other), f"There is no {other}.", "price_absent"))
    rng.shuffle(turns)
    return tuple(turns[: rng.randint(5, 8)])
