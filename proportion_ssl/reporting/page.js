
"use strict";
document.documentElement.classList.add("js");

// Tables: a press on a heading sorts by its column, another one turns the order round.
for (const button of document.querySelectorAll("table.sortable .sort")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const column = [...heading.parentNode.children].indexOf(heading);
    const isNumber = button.dataset.type === "number";
    const before = heading.getAttribute("aria-sort");
    // numbers start with the greatest, names with A
    const up = before ? before === "descending" : !isNumber;
    for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = heading.closest("table").tBodies[0];
    const keyed = [...body.rows].map((row) => {
      const cell = row.cells[column];
      return { row, key: isNumber ? parseFloat(cell.dataset.value) : cell.textContent.trim() };
    });
    const known = keyed.filter(({ key }) => !Number.isNaN(key));
    const unknown = keyed.filter(({ key }) => Number.isNaN(key));  // stay at the end
    const order = (a, b) => isNumber ? a.key - b.key : a.key.localeCompare(b.key, undefined, { numeric: true });
    known.sort((a, b) => up ? order(a, b) : order(b, a));
    body.append(...[...known, ...unknown].map(({ row }) => row));
  });
}

// Pictures
const STEP = 1.5;
const GREATEST = 16;

class Viewer {
  constructor(article) {
    this.article = article;
    this.frame = article.querySelector(".frame");
    this.view = article.querySelector(".view");
    this.stage = article.querySelector(".stage");
    this.range = article.querySelector(".fade input");
    this.scale = article.querySelector(".scale span");
    this.zoom = 1;
    this.range.addEventListener("input", () => this.fade(this.range.value));
    for (const button of article.querySelectorAll("[data-zoom]")) {
      const factor = { in: STEP, out: 1 / STEP, fit: 0 }[button.dataset.zoom];
      button.addEventListener("click", () => this.magnify(this.zoom * factor));
    }
    this.view.addEventListener("keydown", (event) => this.onKey(event));
    this.view.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    this.view.addEventListener("pointerdown", (event) => this.onDrag(event));
    this.view.addEventListener("dblclick", (event) => this.magnify(this.zoom * STEP, event));
    this.width = 0;
    new ResizeObserver(() => this.onResize()).observe(this.frame);
  }

  show(layer) {
    const input = this.article.querySelector(`.layer.${layer}`);
    if (input) input.checked = true;
  }

  fade(percent) {
    this.range.value = percent;
    this.article.style.setProperty("--fade", percent / 100);
  }

  // Zoom about a point of the view (its middle if no event says where); 1 shows the whole slide.
  magnify(zoom, event) {
    zoom = Math.min(GREATEST, Math.max(1, zoom));
    const { view, stage } = this;
    const box = view.getBoundingClientRect();
    const at = event
      ? [event.clientX - box.left - view.clientLeft, event.clientY - box.top - view.clientTop]
      : [view.clientWidth / 2, view.clientHeight / 2];
    const before = stage.getBoundingClientRect();
    const share = [
      (box.left + view.clientLeft + at[0] - before.left) / before.width,
      (box.top + view.clientTop + at[1] - before.top) / before.height,
    ];
    if (this.zoom === 1) this.fitted = [stage.clientWidth, box.height];
    this.zoom = zoom < 1.01 ? 1 : zoom;
    const isZoomed = this.zoom > 1;
    view.classList.toggle("zoomed", isZoomed);
    stage.style.maxWidth = isZoomed ? "none" : "";
    stage.style.width = isZoomed ? `${this.fitted[0] * this.zoom}px` : "";
    view.style.height = isZoomed ? `${this.fitted[1]}px` : "";
    const after = stage.getBoundingClientRect();
    view.scrollLeft = share[0] * after.width - at[0];
    view.scrollTop = share[1] * after.height - at[1];
    this.drawScale();
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const zooms = { "+": STEP, "=": STEP, "-": 1 / STEP, "_": 1 / STEP, 0: 0 };
    const layers = { p: "prediction", t: "truth", b: "probability", u: "uncertainty", n: "none" };
    const key = event.key.toLowerCase();
    if (key in zooms) this.magnify(this.zoom * zooms[key]);
    else if (key in layers) this.show(layers[key]);
    else return;
    event.preventDefault();
  }

  onWheel(event) {
    if (!event.ctrlKey) return;  // an ordinary wheel scrolls
    event.preventDefault();
    this.magnify(this.zoom * Math.exp(-event.deltaY / 300), event);
  }

  // Touch moves the picture by itself; a mouse does after this.
  onDrag(event) {
    const { view } = this;
    if (event.pointerType !== "mouse" || event.button !== 0 || this.zoom === 1) return;
    const box = view.getBoundingClientRect();
    if (event.clientX - box.left > view.clientWidth || event.clientY - box.top > view.clientHeight) return;
    event.preventDefault();
    view.focus({ preventScroll: true });
    view.setPointerCapture(event.pointerId);
    view.classList.add("dragged");
    const start = [event.clientX + view.scrollLeft, event.clientY + view.scrollTop];
    const move = (now) => {
      view.scrollLeft = start[0] - now.clientX;
      view.scrollTop = start[1] - now.clientY;
    };
    const end = () => {
      view.classList.remove("dragged");
      view.removeEventListener("pointermove", move);
    };
    view.addEventListener("pointermove", move);
    view.addEventListener("lostpointercapture", end, { once: true });
  }

  onResize() {
    const width = this.frame.clientWidth;
    if (width && this.width && width !== this.width && this.zoom > 1) this.magnify(1);
    this.width = width;
    this.drawScale();
  }

  // A round length of at most a quarter of the view.
  drawScale() {
    if (!this.scale || !this.stage.clientWidth) return;
    const perMicron = this.stage.clientWidth / parseFloat(this.frame.dataset.microns);
    const most = this.view.clientWidth / 4 / perMicron;
    const power = 10 ** Math.floor(Math.log10(most));
    const length = power * [5, 2, 1].find((digit) => digit * power <= most);
    this.scale.style.width = `${length * perMicron}px`;
    this.scale.textContent = length >= 1000 ? `${length / 1000} mm` : `${+length.toPrecision(1)} µm`;
  }
}

const viewers = [...document.querySelectorAll(".slide")].map((article) => new Viewer(article));
for (const button of document.querySelectorAll("[data-all]")) {
  button.addEventListener("click", () => viewers.forEach((viewer) => viewer.show(button.dataset.all)));
}
const fadeAll = document.getElementById("fade-all");
if (fadeAll) {
  fadeAll.addEventListener("input", () => viewers.forEach((viewer) => viewer.fade(fadeAll.value)));
}

// The table for spreadsheets: selected, and where the browser allows it copied.
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", () => {
    const box = button.closest("details");
    const text = box.querySelector("textarea");
    text.focus();
    text.select();
    const done = document.execCommand("copy");
    box.querySelector(".copied").textContent = done ? "copied" : "selected; press Ctrl+C";
  });
}
