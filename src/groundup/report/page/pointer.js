// Values under the pointer: a crosshair in the figure, and beside it what each line or cell is there.
// A figure with the keyboard's focus moves it by the arrow keys.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const ROWS = 12;
  const STRIDE = 0.01;

  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);

  const shown = (value) => {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    const text =
      Number.isInteger(value) && size < 1e7
        ? value.toLocaleString("en-US", { useGrouping: size >= 1e4 })
        : size !== 0 && (size < 1e-3 || size >= 1e6)
          ? value.toExponential(3)
          : String(Number(value.toPrecision(5)));
    return text.replaceAll("-", "−");
  };

  // What stands above the values: between two updates no digits that mean nothing.
  const titled = (axes, at) =>
    `${axes.of} ${shown(Number.isInteger(at) ? at : Number(at.toPrecision(3)))}`.trim();

  // From a number to a share of the axis, 0 at its left or lower end, and back.
  const share = ([low, high, log], value) =>
    log
      ? Math.log(value / low) / Math.log(high / low)
      : (value - low) / (high - low);
  const number = ([low, high, log], part) =>
    log ? low * Math.pow(high / low, part) : low + part * (high - low);

  const nearest = (places, at) => {
    let best = -1;
    let least = Infinity;
    places.forEach((place, i) => {
      const away = Math.abs(place - at);
      if (away < least) [best, least] = [i, away];
    });
    return best;
  };

  const node = (name, attributes, style = "") => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.style.cssText = style;
    return element;
  };

  const entry = (colour, name, value) => {
    const row = document.createElement("tr");
    const swatch = document.createElement("i");
    if (colour) swatch.style.background = colour;
    const cells = [swatch, name, value].map((content) => {
      const cell = document.createElement("td");
      cell.append(content);
      return cell;
    });
    row.append(...cells);
    return row;
  };

  const show = (heading, rows, x, y) => {
    const title = document.createElement("b");
    title.textContent = heading;
    const table = document.createElement("table");
    table.append(...rows);
    tip.replaceChildren(title, table);
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const room = document.documentElement.clientWidth;
    const left = x + 16 + width < room ? x + 16 : x - 16 - width;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, Math.min(y + 12, window.innerHeight - height - 4))}px`;
  };

  // The axes that a place in the viewBox lies in.
  const under = (all, { x, y }) =>
    all.find(({ box: [left, top, width, height] }) =>
      x >= left && x <= left + width && y >= top && y <= top + height,
    );

  const crosshair = (group, axes, part, dots) => {
    const [left, top, width, height] = axes.box;
    const x = left + part * width;
    const line = node("line", { x1: x, x2: x, y1: top, y2: top + height, class: "cross" });
    const circles = dots
      .filter(([a, b]) => a >= 0 && a <= 1 && b >= 0 && b <= 1)
      .map(([a, b, colour]) => {
        const place = { cx: left + a * width, cy: top + (1 - b) * height, r: 2.6 };
        return node("circle", place, `fill: ${colour}`);
      });
    group.replaceChildren(line, ...circles);
  };

  const readLines = (axes, at, up) => {
    const found = axes.lines
      .filter(({ x }) => x.length)
      .map((line) => {
        const i = nearest(line.places, at);
        const height = line.y[i] === null ? 0 : share(axes.y, line.y[i]);
        return { ...line, at: line.x[i], value: line.y[i], place: line.places[i], height };
      });
    if (!found.length) return null;
    const lead = found[nearest(found.map(({ place }) => place), at)];
    // A line that has nothing near has nothing to say here: it ended before, or is sparse.
    const near = found.filter(({ place, at: step }) =>
      step === lead.at || Math.abs(place - at) < 0.02,
    );
    const close = near
      .sort((a, b) => Math.abs(a.height - up) - Math.abs(b.height - up))
      .slice(0, ROWS)
      .sort((a, b) => b.value - a.value);
    const rows = close.map((line) => {
      const aside = line.at === lead.at ? "" : ` (at ${shown(line.at)})`;
      return entry(line.colour, line.name + aside, shown(line.value));
    });
    if (near.length > ROWS) rows.push(entry("", `and ${near.length - ROWS} more`, ""));
    const dots = close.map(({ place, height, colour }) => [place, height, colour]);
    return { heading: titled(axes, lead.at), rows, part: lead.place, dots };
  };

  const readHeat = (axes, at, up) => {
    const { values, steps, places } = axes.heat;
    const i = nearest(places, at);
    if (i < 0) return null;
    const layer = Math.min(values[i].length, Math.max(1, Math.round(number(axes.y, up))));
    const rows = [entry("", `layer ${layer}`, shown(values[i][layer - 1]))];
    const part = Math.min(1, Math.max(0, places[i]));
    const middle = share(axes.y, layer);
    return {
      heading: titled(axes, steps[i]),
      rows,
      part,
      dots: [[part, middle, "none"]],
    };
  };

  const prepare = (all) => {
    for (const axes of all) {
      for (const line of axes.lines ?? []) line.places = line.x.map((x) => share(axes.x, x));
      if (axes.heat) axes.heat.places = axes.heat.steps.map((step) => share(axes.x, step));
    }
    return all;
  };

  const attach = (figure) => {
    const svg = figure.querySelector("svg");
    const all = prepare(JSON.parse(figure.querySelector("script.hover").textContent));
    const group = node("g", { class: "hover" });
    svg.append(group);

    const hide = () => {
      group.replaceChildren();
      tip.hidden = true;
    };
    const read = (axes, at, up, x, y) => {
      const found = axes.heat ? readHeat(axes, at, up) : readLines(axes, at, up);
      if (!found) return hide();
      crosshair(group, axes, found.part, found.dots);
      show(found.heading, found.rows, x, y);
    };
    const point = (event) => {
      const matrix = svg.getScreenCTM();
      if (!matrix) return;
      const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
      const axes = under(all, place);
      if (!axes) return hide();
      const [left, top, width, height] = axes.box;
      const [at, up] = [(place.x - left) / width, 1 - (place.y - top) / height];
      read(axes, at, up, event.clientX, event.clientY);
    };
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    svg.addEventListener("pointerleave", hide);
    keyboard(svg, all, read, hide);
  };

  const keyboard = (svg, all, read, hide) => {
    const moves = {
      ArrowLeft: [-STRIDE, 0], ArrowRight: [STRIDE, 0],
      ArrowDown: [0, -STRIDE], ArrowUp: [0, STRIDE],
    };
    const at = [1, 0.5];
    svg.setAttribute("tabindex", "0");
    svg.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return hide();
      const move = moves[event.key];
      if (!move) return;
      event.preventDefault();
      move.forEach((step, i) => { at[i] = Math.min(1, Math.max(0, at[i] + step)); });
      const [left, top, width, height] = all[0].box;
      const place = new DOMPoint(left + at[0] * width, top + (1 - at[1]) * height);
      const { x, y } = place.matrixTransform(svg.getScreenCTM());
      read(all[0], at[0], at[1], x, y);
    });
    svg.addEventListener("blur", hide);
  };

  window.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  document.querySelectorAll("figure").forEach((figure) => {
    if (figure.querySelector("script.hover")) attach(figure);
  });
})();
