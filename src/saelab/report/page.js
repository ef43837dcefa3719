"use strict";
// Without this script the page shows everything at once; with it, seeds open and one latent is shown at a time.
(() => {
  const all = (query, root = document) => [...root.querySelectorAll(query)];
  document.documentElement.classList.add("js");

  for (const button of all("button.toggle")) {
    button.addEventListener("click", () => {
      const open = document.getElementById(`seeds-${button.dataset.seeds}`).classList.toggle("open");
      button.setAttribute("aria-expanded", String(open));
    });
  }

  // what a plot shows where the pointer is, or near it, at once and for fingers too
  const tip = Object.assign(document.createElement("div"), { className: "tip", hidden: true });
  document.body.append(tip);
  const tips = new Map(all("figure title").map((title) => [title.parentNode, title.textContent]));
  for (const title of all("figure title")) title.remove();
  const near = [[0, 0], [0, -5], [5, 0], [0, 5], [-5, 0]];
  const tipAt = (x, y) => {
    for (const [dx, dy] of near) {
      for (let at = document.elementFromPoint(x + dx, y + dy); at; at = at.parentNode) if (tips.has(at)) return tips.get(at);
    }
  };
  const showTip = ({ clientX: x, clientY: y, target }) => {
    const text = target.closest?.("figure") && tipAt(x, y);
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${y > tip.offsetHeight + 16 ? y - tip.offsetHeight - 12 : y + 16}px`;
  };
  for (const kind of ["pointermove", "pointerdown"]) document.addEventListener(kind, showTip);
  document.addEventListener("scroll", () => (tip.hidden = true), { passive: true });

  const select = document.getElementById("run-select");
  if (!select) return;
  const current = () => document.querySelector(".run-latents.open");

  const showLatent = (chip) => {
    for (const card of all(".latent.open")) card.classList.remove("open");
    for (const other of all(".chip", current())) other.setAttribute("aria-pressed", String(other === chip));
    if (chip) document.getElementById(`latent-${chip.dataset.latent}`).classList.add("open");
  };
  const showRun = () => {
    for (const run of all(".run-latents")) run.classList.toggle("open", run.dataset.run === select.value);
    showLatent(all(".chip", current())[0]);
  };
  const move = (by) => {
    const chips = all(".chip", current());
    const at = chips.findIndex((chip) => chip.getAttribute("aria-pressed") === "true");
    showLatent(chips[(at + by + chips.length) % chips.length]);
  };

  const search = document.getElementById("latent-search");
  const answer = document.getElementById("latent-answer");
  const find = () => {
    const chips = all(".chip", current());
    const chip = chips.find((one) => one.dataset.number === String(Number(search.value)));
    if (chip) showLatent(chip);
    const run = select.selectedOptions[0].textContent;
    answer.textContent = chip || search.value === "" ? "" : `Latent ${search.value} of ${run} is not on this page, which has the ${chips.length} latents below.`;
  };

  search.addEventListener("input", find);
  select.addEventListener("change", () => (showRun(), find()));
  document.getElementById("latent-previous").addEventListener("click", () => move(-1));
  document.getElementById("latent-next").addEventListener("click", () => move(1));
  for (const chip of all(".chip")) chip.addEventListener("click", () => showLatent(chip));
  showRun();
})();
