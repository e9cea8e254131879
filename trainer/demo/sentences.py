"""Chinese sentences of telephone calls, as diverse as a small character inventory allows.

A recogniser whose language model has seen a handful of templates recites them; so most of every
text here is unpredictable: numbers, names, addresses, and words in random order. A sentence belongs
to exactly one split by the hash of its text, so no sentence of one split can occur in another,
however many are drawn.
"""

import hashlib
import random
from collections.abc import Callable, Iterator


def _split(words: str) -> tuple[str, ...]:
    return tuple(words.split())


DIGITS = "零幺二三四五六七八九"
NUMERALS = "一二三四五六七八九"
SURNAMES = "张王李赵陈刘杨周"
GIVEN_NAMES = "伟芳静强军明文华海红"
CITIES = _split("北京 上海 广州 南京 天津")
STREETS = _split("人民 中山 和平 新华 东风")
REQUESTS = _split("我想 我要 请帮我 麻烦您 能不能 可以 需要 现在 马上 怎么")
ACTIONS = _split("查询 办理 取消 修改 开通 关闭 投诉 确认 登记 预约 安装 充值 缴费 转账 退款")
OBJECTS = _split(
    "话费 流量 套餐 账单 密码 订单 快递 余额 手机 号码 短信 积分 发票 地址 "
    "身份证 银行卡 信用卡 贷款 保险 合同 机票 火车票 水费 电费"
)
COURTESIES = _split("您好 谢谢 对不起 不客气 再见 请等一下 好的 没问题 请问 请再说一遍")
DAYS = _split("今天 明天 昨天 后天 上周 下周 本月 上个月")
PARTS_OF_DAY = _split("早上 上午 中午 下午 晚上")
PLACES = _split("医院 学校 公司 机场 小区 门口")
LINKS = _split("的 在 和 到 从 是 还没有 已经 不 给 被 用 去")
WORDS = (
    *(REQUESTS + ACTIONS + OBJECTS + COURTESIES + DAYS),
    *(PARTS_OF_DAY + PLACES + LINKS + CITIES + STREETS),
)

# Splits by hash bucket (of 100); the base may have many sentences, so its share is the largest.
SPLIT_BUCKETS = {
    "valid": range(10),
    "test": range(10, 20),
    "wideband": range(20, 30),
    "train": range(30, 50),
    "base": range(50, 100),
}


def _number(rng: random.Random) -> str:
    """A spoken cardinal between 10 and 9999, without inner zeros."""
    text = rng.choice(NUMERALS) + "十"
    if rng.random() < 0.6:
        text += rng.choice(NUMERALS)
    if rng.random() < 0.5:
        text = rng.choice(NUMERALS) + "百" + text
    if rng.random() < 0.2:
        text = rng.choice(NUMERALS) + "千" + text
    return text


def _digits(rng: random.Random) -> str:
    return "".join(rng.choice(DIGITS) for _ in range(rng.randint(4, 11)))


def _amount(rng: random.Random) -> str:
    return _number(rng) + rng.choice(["元", "块钱", "万元", "分钟"])


def _date(rng: random.Random) -> str:
    day = rng.choice(["", "十", "二十"]) + rng.choice(NUMERALS)
    return rng.choice(["", "十"]) + rng.choice("一二") + "月" + day + "号"


def _time(rng: random.Random) -> str:
    hour: str = rng.choice([*"一两三四五六七八九十", "十一", "十二"])
    day = rng.choice([*PARTS_OF_DAY, *DAYS, "星期" + rng.choice("一二三四五六")])
    return day + hour + "点" + rng.choice(["", "半", "一刻"])


def _name(rng: random.Random) -> str:
    given = "".join(rng.choice(GIVEN_NAMES) for _ in range(rng.randint(1, 2)))
    return rng.choice(SURNAMES) + given + rng.choice(["", "", "先生", "女士"])


def _address(rng: random.Random) -> str:
    street: str = rng.choice(STREETS) + rng.choice(["", *"东西南北"]) + rng.choice(["路", "街"])
    return rng.choice([*CITIES, ""]) + street + _number(rng) + rng.choice(["号", "号楼", "室"])


def _request(rng: random.Random) -> str:
    return rng.choice(REQUESTS) + rng.choice(ACTIONS) + rng.choice(OBJECTS)


def _words(rng: random.Random) -> str:
    """Words in random order: nothing but listening tells what comes next."""
    return "".join(rng.choice(WORDS) for _ in range(rng.randint(2, 5)))


def _characters(rng: random.Random) -> str:
    """Characters in random order, the extreme case."""
    return "".join(rng.choice(INVENTORY) for _ in range(rng.randint(3, 8)))


_PARTS: tuple[tuple[Callable[[random.Random], str], int], ...] = (
    (_digits, 4),
    (_amount, 3),
    (_date, 2),
    (_time, 2),
    (_name, 3),
    (_address, 3),
    (_request, 4),
    (_words, 7),
    (_characters, 2),
)


def _inventory() -> str:
    units = "十百千万元块钱分钟月号星期点半刻两先生女士东西南北路街楼室"
    return "".join(sorted(set("".join((*WORDS, DIGITS, SURNAMES, GIVEN_NAMES, units)))))


INVENTORY = _inventory()


def split_of(sentence: str) -> str:
    """The only split that may hold this sentence."""
    bucket = int.from_bytes(hashlib.sha256(sentence.encode()).digest()[:8], "big") % 100
    return next(split for split, buckets in SPLIT_BUCKETS.items() if bucket in buckets)


def draw_sentence(rng: random.Random, *, max_characters: int = 14) -> str:
    """One sentence of one to three parts, at most `max_characters` long."""
    parts, weights = zip(*_PARTS, strict=True)
    count = rng.choice([1, 1, 2, 2, 3])
    text = "".join(part(rng) for part in rng.choices(parts, weights, k=count))
    return text[:max_characters]


def sentences(split: str, seed: int) -> Iterator[str]:
    """Endless distinct sentences of one split; the same seed gives the same ones."""
    rng = random.Random(f"{split}:{seed}")
    seen = set()
    while True:
        sentence = draw_sentence(rng)
        if len(sentence) >= 4 and sentence not in seen and split_of(sentence) == split:
            seen.add(sentence)
            yield sentence
