// Answers for who knows nothing about Equilibrium Matching.

import { el, more, section } from "./elements.js";

export function questions() {
  return section("Questions", null,
    more("What has this to do with pictures?",
      el("p", {}, "A picture of 28 × 28 pixels is a point too: in a space of 784 dimensions instead of two. Noise is a random point there, far away from all pictures. ",
        "The panel Draw does the same walk downhill in that space; each step changes the pixels a little, until a picture is left.")),
    more("How is the slope learned?",
      el("p", {}, "Take a data point and a random point (noise), and a place between them: γ = 0 is the noise, γ = 1 the data. ",
        "The network sees only the place, and must answer with the arrow from the data to the noise, times c(γ). It cannot know which data point was meant, so it learns the mean of all arrows. That mean is the field.")),
    more("Why is there no clock?",
      el("p", {}, "Diffusion models and flow matching tell the network how noisy its input is, and follow a schedule. Here the network sees only the place. ",
        "So a sample may take large or small steps, begin anywhere, and stop by itself when the gradient is almost zero. Samples at different progress can share one batch.")),
    more("What does c(γ) do?",
      el("p", {}, "It sets how large the gradient is on the way. It must reach zero at the data, so that the ground is flat there and samples stop. ",
        "A constant c(γ) does not: this is flow matching without a clock. A truncated c(γ) is constant for most of the way, and falls only at the end: samples stay fast for long.")),
    more("What can go wrong?",
      el("p", {}, "A step that is too large overshoots the valley; a much larger one diverges. Without a stop, samples slide on to places between the data, and variety is lost: collapse. ",
        "In two dimensions this is stronger than for pictures, because data points lie close together.")),
    more("Is this really an energy?",
      el("p", {}, "Almost. The exact field is not quite the slope of any landscape. The map shows the energy whose slope is nearest to it. ",
        "A model can also be trained so that its field is the exact gradient of an energy; it is then a little less good at pictures.")));
}
