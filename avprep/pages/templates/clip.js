// Plays clips: the frame of the moment on the stage, a line over the sound, one clip at a time.
"use strict";
(() => {
  function play(player) {
    const audio = player.querySelector("audio");
    const stage = player.querySelector(".stage");
    const sound = player.querySelector(".sound");
    const playhead = player.querySelector(".playhead");
    const frames = [...player.querySelectorAll(".film button")];
    const times = frames.map((frame) => Number(frame.dataset.time));
    const seconds = Number(audio?.dataset.seconds);
    let shown = -1;

    function show(number) {
      if (number === shown || !frames.length) return;
      frames[shown]?.removeAttribute("aria-current");
      frames[number].setAttribute("aria-current", "true");
      stage.src = frames[number].firstElementChild.src;
      shown = number;
    }

    function follow() {
      const time = audio.currentTime;
      playhead.style.left = `${Math.min(100, (100 * time) / seconds)}%`;
      show(Math.max(0, times.findLastIndex((start) => start <= time + 0.001)));
    }

    function step() {
      follow();
      if (!audio.paused) requestAnimationFrame(step);
    }

    function seek(time) {
      playhead.hidden = false;
      if (audio.readyState) {
        audio.currentTime = Math.min(time, seconds);
        follow();
        return;
      }
      audio.addEventListener("loadedmetadata", () => seek(time), { once: true });
      audio.load();
    }

    stage.hidden = !frames.length;
    show(0);
    frames.forEach((frame, number) =>
      frame.addEventListener("click", () => {
        show(number);
        if (audio) seek(times[number]);
      }),
    );
    if (!audio) return;
    audio.addEventListener("play", () => {
      for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
      playhead.hidden = false;
      step();
    });
    audio.addEventListener("seeked", follow);
    sound.addEventListener("click", (event) => {
      const box = sound.getBoundingClientRect();
      seek(((event.clientX - box.left) / box.width) * seconds);
    });
  }

  // Browsers allow so many players at a time: those in view learn their length, the rest wait.
  const inView = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) target.preload = "metadata";
    }
  });
  for (const player of document.querySelectorAll(".player")) {
    play(player);
    const audio = player.querySelector("audio");
    if (audio) inView.observe(audio);
  }
})();
