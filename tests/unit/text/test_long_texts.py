"""How texts are put to Qwen: inside the talk it knows, behind a task, or filled up; with its own vocabulary."""

from __future__ import annotations

from overpaint.models.flow_rows import NEWER_FAMILIES
from overpaint.settings import Quirks
from overpaint.text.long_texts import (
    EDIT_TASK_TOKENS,
    TASK_TOKENS,
    qwen_tokenizer,
    read_described,
    read_edit,
    read_unthinking,
    read_whole,
    show_before_the_text,
)
from overpaint.text.prompt import Segment

SIZE = 151_936
ASKED = [Segment("a red cat", 1.0)]
START, END, PAD = 151_644, 151_645, 151_643
SHOWN, HIDDEN = 151_652, 151_653


def test_a_task_before_the_text_of_which_nothing_is_read() -> None:
    """As many tokens as the family's row leaves out, and then the talk as without it."""
    own = qwen_tokenizer("", SIZE)
    (told,), count = read_described(ASKED, own, quirks=Quirks())
    (plain,), _ = read_whole(ASKED, own, quirks=Quirks())
    assert count == len(told.ids) and plain.ids[:3] == told.ids[TASK_TOKENS - 3 : TASK_TOKENS]
    assert told.ids[TASK_TOKENS:] == plain.ids[3:]  # behind "<|im_start|>user\n"
    row = next(each for each in NEWER_FAMILIES if each.name == "qwen-image")
    assert [text.unread for text in row.texts] == [TASK_TOKENS]


def test_a_long_text_keeps_as_much_as_another_family_reads() -> None:
    (told,), count = read_described([Segment("cat " * 900, 1.0)], qwen_tokenizer("", SIZE), quirks=Quirks())
    assert len(told.ids) == TASK_TOKENS + 512 < count


def test_pictures_of_an_edit_stand_behind_its_task() -> None:
    """What is left out ends where the first picture begins, as the rows of the families say."""
    own = qwen_tokenizer("", SIZE)
    (told,), count = read_edit(ASKED, own, quirks=Quirks())
    (plain,), _ = read_whole(ASKED, own, quirks=Quirks())
    assert count == len(told.ids) and told.ids[EDIT_TASK_TOKENS:] == plain.ids[3:]
    rows = [each for each in NEWER_FAMILIES if each.name.startswith("qwen-image-edit")]
    assert [[text.unread for text in each.texts] for each in rows] == [[EDIT_TASK_TOKENS]] * 3
    ids, slots = show_before_the_text(told.ids, own, 1, numbered=False)
    assert ids == [*told.ids[:EDIT_TASK_TOKENS], SHOWN, HIDDEN, *told.ids[EDIT_TASK_TOKENS:]]
    assert slots == [EDIT_TASK_TOKENS + 1]
    ids, slots = show_before_the_text(told.ids, own, 2, numbered=True)
    names = [own.encode(f"Picture {each}: ") for each in (1, 2)]
    around = [*names[0], SHOWN, HIDDEN, *names[1], SHOWN, HIDDEN]
    assert ids[EDIT_TASK_TOKENS : EDIT_TASK_TOKENS + len(around)] == around
    assert [ids[each - 1 : each + 1] for each in slots] == [[SHOWN, HIDDEN]] * 2
    assert ids[-len(plain.ids) + 3 :] == list(plain.ids[3:])


def test_an_answer_without_thoughts_and_what_fills_it_up() -> None:
    """The marks of thoughts are one token each; filling is told from the text by its sign."""
    (read,), count = read_unthinking(ASKED, qwen_tokenizer("", SIZE), quirks=Quirks())
    assert len(read.ids) == 512 and set(read.ids[count:]) == {-1 - PAD}
    assert read.ids[0] == START and END in read.ids and {151_667, 151_668} <= set(read.ids[:count])
    (cut,), count = read_unthinking([Segment("cat " * 900, 1.0)], qwen_tokenizer("", SIZE), quirks=Quirks())
    assert len(cut.ids) == 512 < count and min(cut.ids) >= 0
