// The plane: a press, and a move while pressed, sends the point of the picture, as shares of its sides. One
// question is under way at a time; where the pointer is when its answer comes, is the next one.
const AAE_PATIENCE = 2000;  // milliseconds until an answer is given up
function aaePlane(element, trigger) {
  let pressed = false, wanted = null, waiting = 0;
  const ask = () => {
    clearTimeout(waiting);
    waiting = 0;
    if (!wanted) return;
    trigger("select", wanted);
    wanted = null;
    waiting = setTimeout(ask, AAE_PATIENCE);
  };
  window.addEventListener("aae-answer", ask);
  const send = (event) => {
    const box = element.querySelector(".aae-plane img")?.getBoundingClientRect();
    if (!box) return;
    wanted = { left: (event.clientX - box.left) / box.width, top: (event.clientY - box.top) / box.height };
    aaeMark(element, wanted.left, wanted.top);
    if (!waiting) ask();
  };
  element.addEventListener("pointerdown", (event) => {
    if (!event.target.closest(".aae-plane")) return;
    pressed = true;
    event.preventDefault();
    send(event);
  });
  window.addEventListener("pointermove", (event) => pressed && send(event));
  for (const end of ["pointerup", "pointercancel"]) window.addEventListener(end, () => (pressed = false));
}

function aaeMark(plane, left, top) {
  const mark = plane?.querySelector(".aae-mark");
  if (!mark) return;
  mark.style.display = Number.isFinite(left) ? "block" : "none";
  mark.style.left = `${100 * left}%`;
  mark.style.top = `${100 * top}%`;
}

// The server says where the code lies in a `.aae-place`; the mark of the plane goes there.
function aaeFollow(place, plane) {
  const found = document.querySelector(`#${place} .aae-place`);
  aaeMark(document.getElementById(plane), parseFloat(found?.dataset.left), parseFloat(found?.dataset.top));
}

// The pad: lines are drawn, pictures dropped or chosen; what it then shows is sent as a PNG.
function aaePad(element, trigger, limit) {
  const pad = element.querySelector(".aae-pad"), canvas = pad.querySelector("canvas");
  const alert = pad.querySelector("[role=alert]"), file = pad.querySelector("input");
  const paint = canvas.getContext("2d");
  let last = null;
  const clear = () => {
    paint.fillStyle = "#fff";
    paint.fillRect(0, 0, canvas.width, canvas.height);
    alert.textContent = "";
  };
  const at = (event) => {
    const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  };
  const line = (from, to) => {
    paint.strokeStyle = "#000";
    paint.lineCap = "round";
    paint.lineWidth = canvas.width / 14;
    paint.beginPath();
    paint.moveTo(...from);
    paint.lineTo(...to);
    paint.stroke();
  };
  const send = () => trigger("select", { picture: canvas.toDataURL("image/png") });
  const take = async (chosen) => {
    if (!chosen) return;
    if (chosen.size > limit) {
      alert.textContent = `${chosen.name} is larger than ${limit / 2 ** 20} MB: take a smaller picture.`;
      return;
    }
    try {
      const picture = await createImageBitmap(chosen);
      clear();
      // All of it, as large as fits; the rest stays white.
      const scale = Math.min(canvas.width / picture.width, canvas.height / picture.height);
      const [width, height] = [picture.width * scale, picture.height * scale];
      paint.drawImage(picture, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
      trigger("select", { picture: aaeWhole(picture) });
    } catch {
      alert.textContent = `${chosen.name} is no picture that can be read: take a PNG or JPEG file.`;
    }
  };
  canvas.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    last = at(event);
    line(last, last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const next = at(event);
    line(last, next);
    last = next;
  });
  for (const end of ["pointerup", "pointercancel"])
    canvas.addEventListener(end, () => {
      if (last) send();
      last = null;
    });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"])
    pad.addEventListener(kind, (event) => {
      event.preventDefault();
      pad.classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files[0]);
    });
  pad.querySelector("button").addEventListener("click", clear);
  file.addEventListener("change", () => {
    take(file.files[0]);
    file.value = "";
  });
  clear();
}

// A picture on white, of at most 1024 pixels a side, so that little is sent.
function aaeWhole(picture) {
  const whole = document.createElement("canvas"), side = Math.max(picture.width, picture.height);
  const scale = Math.min(1, 1024 / side);
  whole.width = Math.max(1, Math.round(picture.width * scale));
  whole.height = Math.max(1, Math.round(picture.height * scale));
  const paint = whole.getContext("2d");
  paint.fillStyle = "#fff";
  paint.fillRect(0, 0, whole.width, whole.height);
  paint.drawImage(picture, 0, 0, whole.width, whole.height);
  return whole.toDataURL("image/png");
}
