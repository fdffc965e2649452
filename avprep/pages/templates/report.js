// Filters: clips by class and id, failures by cause. The address keeps the clips' filter.
"use strict";
(() => {
  const clips = [...document.querySelectorAll(".clip")];
  const byClass = document.getElementById("class-filter");
  const byId = document.getElementById("id-filter");
  const clear = document.getElementById("clear-filters");
  const shown = document.getElementById("shown");
  const none = document.getElementById("none-shown");

  function filter() {
    const chosen = byClass?.value ?? "";
    const words = byId.value.trim().toLowerCase();
    let count = 0;
    for (const clip of clips) {
      const fits =
        (!chosen || clip.dataset.classes.split(" ").includes(chosen)) &&
        clip.dataset.id.toLowerCase().includes(words);
      clip.hidden = !fits;
      if (!fits) clip.querySelector("audio")?.pause();
      count += fits;
    }
    shown.textContent = `${count} of ${clips.length} clips`;
    clear.hidden = !(chosen || words);
    none.hidden = count > 0;
    none.textContent = words
      ? "No clip of this gallery fits. failures.csv and the indexes list every id."
      : "No clip of this class is in this gallery. `avprep report --per-class 1` shows one of each.";
    const address = new URLSearchParams();
    if (chosen) address.set("class", byClass.selectedOptions[0].textContent);
    if (words) address.set("id", words);
    history.replaceState(null, "", `#${address}`);
  }

  function restore() {
    const address = new URLSearchParams(location.hash.slice(1));
    const named = [...(byClass?.options ?? [])].find((o) => o.textContent === address.get("class"));
    if (byClass) byClass.value = named?.value ?? "";
    byId.value = address.get("id") ?? "";
  }

  if (byId) {
    restore();
    filter();
    byClass?.addEventListener("change", filter);
    byId.addEventListener("input", filter);
    clear.addEventListener("click", () => {
      if (byClass) byClass.value = "";
      byId.value = "";
      filter();
      byId.focus();
    });
    for (const button of document.querySelectorAll("button[data-class]")) {
      button.addEventListener("click", () => {
        byClass.value = button.dataset.class;
        byId.value = "";
        filter();
        if (button.classList.contains("bar")) {
          byClass.focus({ preventScroll: true });
          document.getElementById("clips").scrollIntoView();
        }
      });
    }
  }

  const causes = [...document.querySelectorAll("button[data-cause]")];
  const list = document.getElementById("failure-list");
  for (const button of causes) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      for (const other of causes) other.setAttribute("aria-pressed", String(on && other === button));
      if (!list) return;
      list.open = true;
      for (const row of list.querySelectorAll("tbody tr")) {
        row.hidden = on && row.dataset.cause !== button.dataset.cause;
      }
    });
  }
})();
