"use strict";
(() => {
  const page = JSON.parse(document.getElementById("page").textContent);
  const root = document.documentElement;
  const hidden = new Set();
  const drawn = new Set();
  const place = (i) => document.getElementById("c" + i);
  const kept = (name) => { try { return sessionStorage.getItem(name); } catch { return null; } };
  const keep = (name, value) => { try { sessionStorage.setItem(name, value); } catch { /* the page may not store */ } };

  // Light and dark: as the system has it, until the button is pressed.
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const colours = () => {
    const of = (name) => getComputedStyle(root).getPropertyValue(name).trim();
    return { ink: of("--ink"), soft: of("--soft"), rule: of("--rule"), paper: of("--paper") };
  };

  function layout(i) {
    const { ink, soft, rule, paper } = colours();
    const own = page.charts[i].layout;
    const axis = { gridcolor: rule, linecolor: rule, zerolinecolor: soft, zeroline: false, tickcolor: rule, automargin: true };
    const narrow = place(i).clientWidth < 480;
    return {
      ...own,
      height: undefined,
      autosize: true,
      xaxis: { ...axis, ...own.xaxis },
      yaxis: { ...axis, ...own.yaxis },
      shapes: (own.shapes || []).map((shape) => ({ ...shape, line: { ...shape.line, color: soft } })),
      font: { family: "system-ui, sans-serif", size: narrow ? 11 : 12, color: ink },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 52, r: 12, t: 8, b: 40 },
      hoverlabel: { bgcolor: paper, bordercolor: soft, font: { color: ink }, namelength: -1, align: "left" },
      showlegend: false,
    };
  }

  const visible = (trace) => !hidden.has(trace.run);

  function draw(i) {
    if (drawn.has(i)) return;
    drawn.add(i);
    const data = page.charts[i].data.map((trace) => ({ ...trace, visible: visible(trace) }));
    Plotly.newPlot(place(i), data, layout(i), { responsive: true, displayModeBar: false, displaylogo: false });
  }

  function recolour() {
    root.style.colorScheme = isDark() ? "dark" : "light";
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-pressed", String(isDark()));
    for (const i of drawn) Plotly.relayout(place(i), layout(i));
  }

  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    keep("theme", root.dataset.theme);
    recolour();
  });
  system.addEventListener("change", recolour);

  // Runs: a box hides the run in every chart and table.
  const boxes = [...document.querySelectorAll("input[data-run]")];

  function showRuns() {
    hidden.clear();
    for (const box of boxes) if (!box.checked) hidden.add(Number(box.dataset.run));
    for (const row of document.querySelectorAll("[data-row]")) row.hidden = hidden.has(Number(row.dataset.row));
    for (const figure of document.querySelectorAll("[data-only]")) figure.hidden = hidden.has(Number(figure.dataset.only));
    for (const i of drawn) Plotly.restyle(place(i), { visible: page.charts[i].data.map(visible) });
    keep("hidden", JSON.stringify([...hidden]));
  }

  for (const box of boxes) box.addEventListener("change", showRuns);
  for (const [id, to] of [["all", true], ["none", false]]) {
    document.getElementById(id).addEventListener("click", () => {
      for (const box of boxes) box.checked = to;
      showRuns();
    });
  }

  // The table of a chart is made when it is opened: all of them together would be most of the page.
  function fill(details) {
    if (details.querySelector("table")) return;
    const { head, rows } = page.charts[Number(details.dataset.chart)];
    const around = document.createElement("div");
    around.className = "wide";
    around.tabIndex = 0;
    const table = around.appendChild(document.createElement("table"));
    const cell = (row, kind, value) => {
      const made = row.appendChild(document.createElement(kind));
      made.textContent = value === null ? "–" : typeof value === "number" ? String(Number(value.toPrecision(6))) : value;
      return made;
    };
    const top = table.createTHead().insertRow();
    for (const name of head) cell(top, "th", name).scope = "col";
    const body = table.createTBody();
    for (const row of rows) {
      const made = body.insertRow();
      row.forEach((value, k) => cell(made, k ? "td" : "th", value));
    }
    details.append(around);
  }

  for (const details of document.querySelectorAll("details[data-chart]")) {
    details.addEventListener("toggle", () => { if (details.open) fill(details); });
  }

  // What is in sight is drawn first, the rest while nothing else is to do; printing needs all of it, in light colours.
  let theme;
  addEventListener("beforeprint", () => {
    theme = root.dataset.theme;
    root.dataset.theme = "light";
    page.charts.forEach((_, i) => draw(i));
    recolour();
  });
  addEventListener("afterprint", () => {
    if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
    recolour();
  });

  if (matchMedia("(max-width: 899px)").matches) document.getElementById("runs").open = false;
  if (kept("theme")) root.dataset.theme = kept("theme");
  if (page.refresh) {
    for (const run of JSON.parse(kept("hidden") || "[]")) {
      const box = boxes.find((one) => Number(one.dataset.run) === run);
      if (box) box.checked = false;
    }
    showRuns();
    addEventListener("pagehide", () => keep("scroll", String(scrollY)));
    scrollTo(0, Number(kept("scroll") || 0));
  }
  recolour();

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) draw(Number(entry.target.id.slice(1)));
  }, { rootMargin: "200px" });
  page.charts.forEach((_, i) => seen.observe(place(i)));
  const idle = globalThis.requestIdleCallback || ((work) => setTimeout(work, 50));
  const next = (i) => {
    if (i < page.charts.length) {
      draw(i);
      idle(() => next(i + 1));
      return;
    }
    root.dataset.drawn = "all";
    if (page.refresh) setTimeout(() => location.reload(), 1000 * page.refresh);
  };
  idle(() => next(0));
})();
