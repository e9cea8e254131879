"use strict";
// What the sweep's report does beside `page.js`: filters of trials, and the browser of utterances.
const own = ({ $, make, say, data }) => {
  if ($("trial-table")) {
    const rows = [...$("trial-table").tBodies[0].rows];
    const filter = () => {
      const wanted = $("trial-find").value.trim().toLowerCase();
      const stage = $("trial-stage").value, outcome = $("trial-outcome").value;
      let shown = 0;
      for (const row of rows) {
        const fits = (!stage || row.dataset.stage === stage)
          && (!outcome || row.dataset.outcome === outcome)
          && (!wanted || row.textContent.toLowerCase().includes(wanted));
        row.hidden = !fits;
        shown += fits;
      }
      $("trial-count").textContent = say("shown", shown, rows.length);
    };
    for (const id of ["trial-find", "trial-stage", "trial-outcome"]) $(id).addEventListener("input", filter);
    filter();
  }

  // Texts, utterance by utterance.

  if (!$("browser")) return;
  const PAGE_SIZE = 10;
  let shownCount = PAGE_SIZE, chosen = [];
  const fill = (select, options, preferred) => {
    select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
    if (preferred !== undefined && options.some(([value]) => value === preferred)) select.value = preferred;
  };
  const current = () => data.sets[$("browse-set").value];
  const errorsOf = (pair) => pair === null ? 0 : [...pair[1]].filter((op) => op !== "=").length;

  const fillSet = () => {
    const names = current().systems.map((name, index) => [String(index), name]);
    const indexOf = (name) => String(Math.max(0, current().systems.indexOf(name)));
    const other = data.baseline && data.baseline !== data.best ? data.baseline : data.base;
    fill($("browse-a"), names, indexOf(data.best));
    fill($("browse-b"), names, indexOf(other));
    const counts = new Map();
    for (const { slices: own } of current().utterances) {
      for (const slice of Object.entries(own)) {
        const value = JSON.stringify(slice);
        counts.set(value, (counts.get(value) || 0) + 1);
      }
    }
    const groups = Object.entries(current().slices).map(([kind, labels]) =>
      make("optgroup", { label: kind }, ...labels.map((label) => {
        const value = JSON.stringify([kind, label]);
        return make("option", { value }, `${label} (${counts.get(value) || 0})`);
      })));
    $("browse-slice").replaceChildren(make("option", { value: "" }, say("all")), ...groups);
  };

  const cellsOf = (reference, pair) => {
    // For each character of the reference what was heard for it, and what was inserted before it.
    const cells = Array.from({ length: reference.length + 1 }, () => ({ inserted: [], op: "", got: "" }));
    const heard = [...pair[0]];
    let at = 0, read = 0;
    for (const op of pair[1]) {
      if (op === "I") { cells[at].inserted.push(heard[read++]); continue; }
      cells[at].op = op;
      if (op !== "D") cells[at].got = heard[read++];
      at += 1;
    }
    return cells;
  };
  const rowOf = (name, cells, widths, count) => {
    const row = make("tr", {}, make("th", { scope: "row" }, name));
    for (let at = 0; at <= count; at += 1) {
      for (let slot = 0; slot < widths[at]; slot += 1) {
        const char = cells && cells[at].inserted[slot];
        row.append(char
          ? make("td", {}, make("span", { class: "I", title: say("I") }, `+${char}`)) : make("td"));
      }
      if (at === count || !cells) continue;
      const { op, got } = cells[at];
      row.append(op === "=" ? make("td", {}, got)
        : make("td", {}, make("span", { class: op, title: say(op) }, op === "D" ? "–" : got)));
    }
    return row;
  };
  const cardOf = ({ item, a, b }) => {
    const reference = [...item.ref];
    const pairs = [a, b].map((system) => item.texts[system]);
    const placed = pairs.map((pair) => pair && cellsOf(reference, pair));
    const widths = Array.from({ length: reference.length + 1 }, (_, at) =>
      Math.max(0, ...placed.map((cells) => cells ? cells[at].inserted.length : 0)));
    const table = make("table");
    const first = make("tr", {}, make("th", { scope: "row" }, say("reference")));
    for (let at = 0; at <= reference.length; at += 1) {
      for (let slot = 0; slot < widths[at]; slot += 1) first.append(make("td"));
      if (at < reference.length) first.append(make("td", {}, reference[at]));
    }
    table.append(first);
    placed.forEach((cells, index) => {
      const name = `${"AB"[index]} ${current().systems[[a, b][index]]}`;
      if (cells) table.append(rowOf(name, cells, widths, reference.length));
      else table.append(make("tr", {}, make("th", { scope: "row" }, name),
        make("td", { colspan: String(Math.max(1, reference.length)) }, say("missing"))));
    });
    const labels = Object.entries(item.slices).map(([kind, label]) => `${kind}: ${label}`).join(", ");
    const said = `${item.key} · ${say("errors", errorsOf(pairs[0]), errorsOf(pairs[1]))} · ${labels}`;
    return make("article", { class: "utterance", "data-key": item.key },
      make("p", {}, said), make("div", { class: "wide", tabindex: "0" }, table));
  };

  const frequent = (a, b) => {
    const counts = new Map();
    for (const { item } of chosen) {
      [a, b].forEach((system, side) => {
        const pair = item.texts[system];
        if (!pair) return;
        const reference = [...item.ref], heard = [...pair[0]];
        let at = 0, read = 0;
        for (const op of pair[1]) {
          const expected = op === "I" ? "" : reference[at++];
          const got = op === "D" ? "" : heard[read++];
          if (op === "=") continue;
          const key = `${expected}\t${got}`;
          if (!counts.has(key)) counts.set(key, [0, 0]);
          counts.get(key)[side] += 1;
        }
      });
    }
    const rows = [...counts].sort(([, one], [, other]) =>
      other[0] - one[0] || other[1] - one[1]).slice(0, 20);
    $("browse-frequent").tBodies[0].replaceChildren(...rows.map(([key, [countA, countB]]) => {
      const [expected, got] = key.split("\t");
      const shown = [expected || say("nothing"), got || say("nothing")].map((text) => make("td", {}, text));
      return make("tr", {}, ...shown, make("td", { class: "right" }, String(countA)),
        make("td", { class: "right" }, String(countB)));
    }));
  };

  const list = () => {
    const cards = chosen.slice(0, shownCount).map(cardOf);
    $("browse-list").replaceChildren(...(cards.length ? cards : [make("p", {}, say("empty"))]));
    $("browse-more").hidden = shownCount >= chosen.length;
  };
  const browse = () => {
    const a = Number($("browse-a").value), b = Number($("browse-b").value);
    const slice = $("browse-slice").value ? JSON.parse($("browse-slice").value) : null;
    const wanted = $("browse-find").value.trim().toLowerCase();
    chosen = [];
    let characters = 0, errorsA = 0, errorsB = 0;
    for (const item of current().utterances) {
      const [pairA, pairB] = [item.texts[a], item.texts[b]];
      if (slice && item.slices[slice[0]] !== slice[1]) continue;
      if (wanted && ![item.key, item.ref, pairA?.[0], pairB?.[0]].some((text) =>
        text && text.toLowerCase().includes(wanted))) continue;
      if ($("browse-differ").checked && pairA?.[0] === pairB?.[0]) continue;
      const one = { item, a, b, errorsA: errorsOf(pairA), errorsB: errorsOf(pairB) };
      chosen.push(one);
      characters += [...item.ref].length;
      errorsA += one.errorsA;
      errorsB += one.errorsB;
    }
    const orders = {
      worse: (x, y) => (y.errorsA - y.errorsB) - (x.errorsA - x.errorsB),
      better: (x, y) => (x.errorsA - x.errorsB) - (y.errorsA - y.errorsB),
      errors: (x, y) => y.errorsA - x.errorsA,
      order: () => 0,
    };
    chosen.sort(orders[$("browse-sort").value]);
    const percent = (count) => characters ? (100 * count / characters).toFixed(2) : "-";
    const { whole, utterances } = current();
    const part = utterances.length < whole ? ` ${say("part", utterances.length, whole)}` : "";
    $("browse-summary").textContent = say("summary", chosen.length, characters, percent(errorsA),
      percent(errorsB), percent(errorsA - errorsB)) + part;
    shownCount = PAGE_SIZE;
    list();
    frequent(a, b);
  };
  fill($("browse-set"), Object.keys(data.sets).map((name) => [name, name]), "test");
  $("browse-set").addEventListener("input", () => { fillSet(); browse(); });
  for (const id of ["browse-a", "browse-b", "browse-slice", "browse-sort", "browse-find", "browse-differ"]) {
    $(id).addEventListener("input", browse);
  }
  $("browse-more").addEventListener("click", () => { shownCount += PAGE_SIZE; list(); });
  fillSet();
  browse();
};
