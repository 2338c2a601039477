// Charts say the values of one day: under the pointer, or by keyboard. Each is one stop of the Tab key, a slider from its
// first to its last day, so that screen readers say the day and its values with each arrow key.

const STEPS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -7, PageUp: 7, Home: -Infinity, End: Infinity };

/** @param {HTMLElement} plot */
function start(plot) {
  const texts = [...plot.querySelectorAll("g")].map((column) => column.dataset.text);
  const reading = plot.closest("figure").querySelector(".reading");
  const cursor = plot.querySelector(".cursor");
  const whole = reading.textContent;
  let chosen = texts.length - 1;

  const choose = (/** @type {number} */ at) => {
    chosen = Math.min(Math.max(at, 0), texts.length - 1);
    plot.setAttribute("aria-valuenow", `${chosen + 1}`);
    plot.setAttribute("aria-valuetext", texts[chosen]);
  };
  const show = (/** @type {number} */ at) => {
    reading.textContent = texts[at];
    reading.classList.add("one");
    cursor.setAttribute("x", `${(100 * at) / texts.length}%`);
    cursor.setAttribute("visibility", "visible");
  };
  const rest = () => {
    if (plot.matches(":focus-visible")) return show(chosen);
    reading.textContent = whole;
    reading.classList.remove("one");
    cursor.setAttribute("visibility", "hidden");
  };

  const attributes = { role: "slider", tabindex: "0", "aria-label": plot.dataset.title, "aria-valuemin": "1", "aria-valuemax": `${texts.length}` };
  for (const [name, value] of Object.entries(attributes)) plot.setAttribute(name, value);
  choose(chosen);
  const point = (/** @type {PointerEvent} */ event) => {
    const place = plot.getBoundingClientRect();
    const share = (event.clientX - place.left) / place.width;
    show(Math.min(Math.max(Math.floor(share * texts.length), 0), texts.length - 1));
  };
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  plot.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") rest(); });
  plot.addEventListener("focus", () => { if (plot.matches(":focus-visible")) show(chosen); });
  plot.addEventListener("blur", rest);
  plot.addEventListener("keydown", (event) => {
    if (!(event.key in STEPS) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    choose(chosen + STEPS[event.key]);
    show(chosen);
  });
}

for (const plot of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".daily .plot"))) start(plot);
