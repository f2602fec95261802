const slides = document.querySelectorAll('.slide');
const dots = document.querySelector('.dots');
let current = 0;
let timer = null;

function show(index) {
  slides[current].classList.remove('active');
  dots.children[current].removeAttribute('aria-current');
  current = (index + slides.length) % slides.length;
  slides[current].classList.add('active');
  dots.children[current].setAttribute('aria-current', 'true');
}

function restart() {
  clearInterval(timer);
  timer = setInterval(() => show(current + 1), 5000);
}

slides.forEach((slide, i) => {
  const dot = document.createElement('button');
  dot.textContent = i + 1;
  dot.addEventListener('click', () => {
    show(i);
    restart();
  });
  dots.append(dot);
});

show(0);
restart();
