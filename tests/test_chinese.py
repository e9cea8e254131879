"""The Chinese texts say one word for one thing, and no word is broken by a replacement.

Pages, templates, the documents made from them and both catalogues are read without their code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

GLOSSARY: Mapping[str, str] = {
    "语句": "(?<!电)话语|句话|语段",  # utterance
    "说话人": "说话者|讲话人|发言人",
    "通话": "通电话|话务",  # a call; 电话 is the telephone
    "搜索": r"扫描|扫参|遍历搜索|\b[Ss]weep\b",
    "试验": "次实验|个实验|尝试次",  # a trial; 实验 is MLflow's experiment
    "参数 (配置), key (清单)": "(?<!关)键|参量|变量名|选项名",
    "预训练模型": "原始模型|发布模型|已发布|发布的模型|官方模型|释出",
    "基座": "基座模型|底座|基础模型|底模",
    "微调": "精调|细调|微调训练",
    "置信区间": "(?<!置信)区间|信赖|可信区",
    "随机种子": "(?<!随机)种子",
    "评测": "评估|测评",
    "评分, 得分": "计分|打分|成绩",
    "检查点": "存档点|快照",
    "断点": "恢复点|续训点|还原点",
    "轮": "纪元|迭代轮|个周期",
    "剪枝": "修剪|剪除|剪掉",
    "信道": "通道",  # of a telephone; 声道 is a channel of audio
    "token": "词元|令牌",
    "损失": r"[\u4e00-\u9fff] ?loss\b|\bloss ?[\u4e00-\u9fff]",
    "权重衰减": "权值衰减|权重衰退",
    "学习率": "学习速率|学习步长",
    "采样率": "取样率|抽样率|采样频率",
    "宽带": "宽频",
    "文本规整": "规范化|标准化文本",
    "模型注册表": "模型仓库|模型登记处",
    "跳过 (语句)": "略去|略过|漏掉",
    "文本 (transcript)": "转录|转写|抄本",
    "清单 (manifest)": "货单|舱单|声明文件",
    "学习曲线": "学习进程",
}
"""The word for each thing, and what would be another one for it (a regular expression)."""

BROKEN = {
    # 电话语音 and 电话语料 became 电语句音 and 电语句料 when 话语 was replaced across words.
    "a word cut by a replacement": "[电通]语句|语句[音料言义法境气速种系]|参数量名|搜索器件|基座座",
    "a word twice": r"([\u4e00-\u9fff]{2})\1|([的了是在和与把被])\2",
    "western punctuation": r"[\u4e00-\u9fff][,;?!][\u4e00-\u9fff]|[\u4e00-\u9fff]\.(?:\s|$)",
}

_CODE = re.compile(
    r"^```.*?^```$|<!--.*?-->|`[^`\n]*`|\]\([^)]*\)|\{\{[^}]*\}\}|\{\w+\}", re.S | re.M
)


def _texts() -> Iterator[tuple[str, int, str]]:
    """File, line and Chinese text, without code, links and placeholders."""
    pages = [
        ROOT / "README_zh.md",
        *(ROOT / "docs/zh").glob("*.md"),
        *(ROOT / "conf/docs").glob("*_zh.md"),
        *(ROOT / "conf/templates/zh").glob("*.md"),
    ]
    for page in sorted(pages):
        # As many lines as before, so that what is found is named by its line.
        plain = _CODE.sub(lambda code: "\n" * code[0].count("\n"), page.read_text("utf-8"))
        for number, line in enumerate(plain.splitlines(), 1):
            yield page.relative_to(ROOT).as_posix(), number, line
    for catalogue in sorted(CATALOGUES):
        root = yaml.compose(catalogue.read_text(encoding="utf-8"))
        for node in _values(root):
            line = node.start_mark.line + 1
            yield catalogue.relative_to(ROOT).as_posix(), line, _CODE.sub("", node.value)


def _values(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    """The translations; their keys are the English texts."""
    if isinstance(node, yaml.MappingNode):
        for _, value in node.value:
            yield from _values(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _values(value)
    elif isinstance(node, yaml.ScalarNode):
        yield node


CATALOGUES: list[Path] = [
    path
    for part in ("conf", "trainer", "analysis", "sweeps")
    for path in ROOT.glob(f"{part}/**/zh.yaml")
]
TEXTS = list(_texts())


def _found(pattern: str) -> list[str]:
    return [
        f"{file}:{line}: {found[0]!r} in {text.strip()[:60]!r}"
        for file, line, text in TEXTS
        for found in re.finditer(pattern, text)
    ]


def test_every_chinese_text_is_read() -> None:
    files = {file for file, _, text in TEXTS if re.search(r"[\u4e00-\u9fff]", text)}
    assert len(CATALOGUES) == 1
    assert {path.relative_to(ROOT).as_posix() for path in CATALOGUES} < files
    assert sum(file.startswith("docs/zh/") for file in files) == 9
    assert sum(file.startswith("conf/docs/") for file in files) == 5


@pytest.mark.parametrize("kind", BROKEN)
def test_no_word_is_broken(kind: str) -> None:
    assert _found(BROKEN[kind]) == []


@pytest.mark.parametrize("preferred", GLOSSARY)
def test_one_word_for_one_thing(preferred: str) -> None:
    assert _found(GLOSSARY[preferred]) == []


@pytest.mark.parametrize("text", ["电语句音", "电语句料", "语句音", "的的", "搜索搜索"])
def test_what_was_broken_is_found(text: str) -> None:
    assert any(re.search(pattern, f"把{text}读出来") for pattern in BROKEN.values())
