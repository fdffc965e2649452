// A clip can stand in several places; its sound is in the page once. One plays at a time.
"use strict";
(() => {
  const sounds = JSON.parse(document.getElementById("sounds").textContent);
  const players = [...document.querySelectorAll("audio")];
  for (const audio of players) {
    audio.src = sounds[audio.dataset.sound];
    audio.addEventListener("play", () => {
      for (const other of players) if (other !== audio) other.pause();
    });
  }
})();
