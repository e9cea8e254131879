"use strict";
// What every page does: tables that sort, figures that are drawn when they come into sight. A page
// that does more defines `own` before this, which is given what is packed.
(async () => {
  const $ = (id) => document.getElementById(id);
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  // Tables: they are there without any of this.

  const valueOf = (cell) => {
    const text = cell.dataset.v !== "" ? cell.dataset.v : cell.textContent;
    const blank = text === "" || text === "-";
    return { blank, number: blank ? NaN : Number(text), text };
  };
  const compare = (one, other) => {
    if (!Number.isNaN(one.number) && !Number.isNaN(other.number)) return one.number - other.number;
    return one.text.localeCompare(other.text, undefined, { numeric: true });
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, index) => {
      head.querySelector("button").addEventListener("click", () => {
        const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row.cells[index]), row]);
        // What was not measured comes last, whichever way.
        rows.sort(([one], [other]) =>
          one.blank || other.blank ? one.blank - other.blank : direction * compare(one, other));
        table.tBodies[0].append(...rows.map(([, row]) => row));
      });
    });
  }

  // What is packed: figures, texts, words.

  if (typeof DecompressionStream === "undefined") {
    document.querySelectorAll(".plot").forEach((plot) => plot.append(document.body.dataset.old));
    return;
  }
  const bytes = Uint8Array.from(atob($("data").textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = JSON.parse(await new Response(stream).text());
  const say = (key, ...values) =>
    data.words[key].replace(/\{(\d)\}/g, (_, index) => String(values[Number(index)]));

  // Figures are drawn when they come into sight.

  const offersWebgl = () => {
    const canvas = document.createElement("canvas");
    return Boolean(canvas.getContext("webgl"));
  };
  const draw = (place) => {
    const figure = data.figures[place.dataset.figure];
    if (figure.data[0].type === "parcoords" && !offersWebgl()) {
      place.append(make("p", { class: "message" }, say("webgl")));
      return;
    }
    Plotly.newPlot(place, figure.data, figure.layout, { responsive: true, displaylogo: false });
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "300px" });
  document.querySelectorAll(".plot").forEach((place) => watcher.observe(place));

  if (typeof own === "function") own({ $, make, say, data });
  document.body.dataset.ready = "true";
})();
