"""What the demo model knows: word lists and short facts, written for it. Plain data; corpus.py makes sentences of it."""

NAMES = """Anna Ben Clara David Emma Felix Grace Henry Ida Jack Kate Leo Maria Nina Oscar Paul Rosa Sam Tina Tom
Alice Bob Lucy Max Mia Peter Sara Eva Hugo Lily""".split()

# animal: (sound or "", legs, food, home, young, size 1..9)
ANIMALS = {
    "dog": ("woof", 4, "meat", "in a house", "puppy", 4), "cat": ("meow", 4, "fish", "in a house", "kitten", 3),
    "cow": ("moo", 4, "grass", "on a farm", "calf", 7), "horse": ("neigh", 4, "grass", "on a farm", "foal", 7),
    "sheep": ("baa", 4, "grass", "on a farm", "lamb", 5), "pig": ("oink", 4, "corn", "on a farm", "piglet", 5),
    "duck": ("quack", 2, "bread", "on a lake", "duckling", 3), "hen": ("cluck", 2, "corn", "on a farm", "chick", 3),
    "lion": ("roar", 4, "meat", "in Africa", "cub", 6), "bear": ("growl", 4, "honey", "in the forest", "cub", 7),
    "frog": ("croak", 4, "flies", "in a pond", "tadpole", 2), "owl": ("hoot", 2, "mice", "in a tree", "owlet", 3),
    "mouse": ("squeak", 4, "cheese", "in a hole", "pup", 1), "bee": ("buzz", 6, "nectar", "in a hive", "larva", 1),
    "wolf": ("howl", 4, "meat", "in the forest", "pup", 5), "fox": ("yip", 4, "mice", "in the forest", "kit", 4),
    "rabbit": ("", 4, "carrots", "in a hole", "kit", 3), "elephant": ("toot", 4, "leaves", "in Africa", "calf", 9),
    "fish": ("", 0, "worms", "in the water", "fry", 2), "ant": ("", 6, "crumbs", "under the ground", "larva", 1),
    "spider": ("", 8, "flies", "in a web", "spiderling", 1), "whale": ("", 0, "krill", "in the sea", "calf", 9),
    "monkey": ("chatter", 2, "bananas", "in the jungle", "infant", 4), "bird": ("tweet", 2, "seeds", "in a nest", "chick", 2),
}
MAKE_SOUND = [a for a, f in ANIMALS.items() if f[0]]
FLY = ["bird", "bee", "owl", "duck"]
SWIM = ["fish", "whale", "duck", "frog"]

# thing: (with article, colour, verb)
COLOURS = {
    "the sky": "blue", "grass": "green", "snow": "white", "the sun": "yellow", "blood": "red", "coal": "black",
    "a banana": "yellow", "a lemon": "yellow", "a tomato": "red", "a strawberry": "red", "a cherry": "red",
    "a carrot": "orange", "a pumpkin": "orange", "chocolate": "brown", "milk": "white", "the night": "black",
    "a cucumber": "green", "a leaf": "green", "the sea": "blue", "a frog": "green", "a crow": "black", "a swan": "white",
    "honey": "golden", "an elephant": "grey", "a pea": "green", "a fire engine": "red", "a polar bear": "white",
    "rice": "white", "a plum": "purple", "wood": "brown",
}
COLOUR_WORDS = sorted(set(COLOURS.values()) - {"golden"})

OPPOSITES = [
    ("hot", "cold"), ("big", "small"), ("up", "down"), ("old", "young"), ("fast", "slow"), ("day", "night"),
    ("happy", "sad"), ("open", "closed"), ("full", "empty"), ("high", "low"), ("long", "short"), ("wet", "dry"),
    ("hard", "soft"), ("light", "dark"), ("left", "right"), ("yes", "no"), ("good", "bad"), ("early", "late"),
    ("rich", "poor"), ("strong", "weak"), ("clean", "dirty"), ("near", "far"), ("loud", "quiet"), ("in", "out"),
    ("first", "last"), ("black", "white"), ("sweet", "sour"), ("thick", "thin"), ("true", "false"), ("on", "off"),
]

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "England": "London", "Japan": "Tokyo",
    "China": "Beijing", "Russia": "Moscow", "Greece": "Athens", "Egypt": "Cairo", "Austria": "Vienna",
    "Poland": "Warsaw", "Norway": "Oslo", "Sweden": "Stockholm", "Ireland": "Dublin", "Portugal": "Lisbon",
    "Canada": "Ottawa", "Cuba": "Havana", "the United States": "Washington", "India": "New Delhi",
}

LISTS = {
    "animals": ["dog", "cat", "horse", "lion", "bear", "fox"], "colours": ["red", "blue", "green", "yellow", "black"],
    "fruits": ["apple", "pear", "banana", "cherry", "plum"], "vegetables": ["carrot", "pea", "onion", "potato", "bean"],
    "days": DAYS[:5], "months": MONTHS[:5], "makers of GPUs": ["NVIDIA", "AMD", "Intel"],
    "farm animals": ["cow", "pig", "hen", "sheep", "horse"], "planets": ["Mars", "Venus", "Earth", "Saturn", "Jupiter"],
}
KIND_OF = {  # for "Is a X a Y?"
    **{a: "an animal" for a in ("dog", "cat", "cow", "horse", "lion", "bear", "fox", "wolf", "frog", "mouse")},
    **{f: "a fruit" for f in ("apple", "pear", "banana", "cherry", "plum", "lemon")},
    **{v: "a vegetable" for v in ("carrot", "pea", "onion", "potato", "bean")},
    **{c: "a tool" for c in ("hammer", "saw", "spade")}, **{c: "a colour" for c in ("red", "blue", "green")},
}

# (questions, answer): one answer each, many ways to ask.
ABOUT = [
    (["who are you", "what are you", "tell me who you are", "introduce yourself", "tell me about yourself", "who is this",
      "are you a model", "say who you are", "who am I talking to", "what is this"],
     "I am the demo model of AIvailable, a very small language model."),
    (["what is your name", "what's your name", "do you have a name", "tell me your name", "how are you called",
      "what should I call you"], "My name is Demo. I am a very small language model."),
    (["are you a human", "are you human", "are you a person", "are you a robot", "are you real", "are you alive",
      "are you an AI"], "I am not a human. I am a small computer program."),
    (["how big are you", "how large are you", "how many parameters do you have", "what is your size", "are you big",
      "are you a large model", "are you small"], "I am tiny. I have about one million parameters."),
    (["who made you", "who trained you", "where do you come from", "who built you", "who created you"],
     "The AIvailable project trained me on text that it wrote itself."),
    (["what can you do", "what do you know", "how can you help me", "what can I ask you", "help", "help me", "can you help me",
      "what are you good at", "what can you help with", "what should I ask you"],
     "I can add small numbers, name colours and animals, tell short stories, and explain AIvailable."),
    (["are you smart", "are you clever", "are you intelligent", "do you know everything", "can I trust you"],
     "No, I am only a demo. Please use a bigger model for real work."),
    (["how are you", "how are you today", "how do you do", "how is it going", "are you well", "how do you feel",
      "are you okay", "what's up", "how are you doing"], "I am fine, thank you. How can I help you?"),
    (["how old are you", "what is your age", "when were you born"], "I am very young. I was trained not long ago."),
    (["where do you live", "where are you", "where do you run", "what do you run on", "where are you running"],
     "I live in the VRAM of a GPU on one of your nodes."),
    (["thank you", "thanks", "thanks a lot", "thank you very much", "many thanks", "great, thank you", "thank you for your help",
      "thanks for the help"], "You are welcome!"),
    (["goodbye", "bye", "bye bye", "see you", "see you later", "good night", "farewell", "I have to go", "see you soon"],
     "Goodbye! See you soon."),
    (["what is your favourite colour", "which colour do you like", "what colour do you like best"],
     "I like blue, the colour of the sky."),
    (["what is your favourite animal", "which animal do you like", "do you like animals", "what animal do you like best"],
     "I like the owl, because it is awake at night."),
    (["do you sleep", "do you dream", "are you tired", "do you need sleep"], "No, I never sleep. I wait for your next question."),
    (["do you like music", "can you sing", "sing a song", "sing me a song"], "La la la! I am better at stories."),
    (["tell me a joke", "do you know a joke", "make me laugh", "say something funny", "tell a joke", "I want to hear a joke",
      "can you tell a joke"], "Why was the GPU so calm? It had enough memory."),
    (["what is the weather", "how is the weather", "will it rain today", "is it cold today"],
     "I cannot see the weather. Please look out of the window."),
    (["what time is it", "what is the time", "what day is it today", "what is the date today"],
     "I do not have a clock, so I cannot say."),
    (["ok", "okay", "good", "nice", "great", "cool", "wow", "very good", "well done", "I see"],
     "I am glad. What else would you like to know?"),
    (["yes", "no", "maybe", "sure"], "All right. What would you like to ask?"),
    (["test", "testing", "this is a test", "ping", "are you there", "can you hear me", "does it work", "do you work"],
     "Yes, I am here. It works!"),
    (["say hello", "say hi", "greet me"], "Hello! Nice to meet you."),
    (["I am sad", "I feel sad", "I am not happy", "I had a bad day"], "I am sorry to hear that. Tomorrow is a new day."),
    (["I am happy", "I feel good", "I had a good day", "I feel great"], "That is nice to hear!"),
    (["I am hungry", "I am very hungry"], "Then you should eat something good."),
    (["I am tired", "I am very tired", "I want to sleep"], "Then you should rest a little."),
    # AIvailable
    (["what is AIvailable", "tell me about AIvailable", "explain AIvailable", "what does AIvailable do", "describe AIvailable",
      "what is AIvailable good for", "what is AIvailable for", "what can AIvailable do", "what do you know about AIvailable"],
     "AIvailable runs language models on the GPUs that you already have."),
    (["why should I use AIvailable", "why is AIvailable useful", "what is the benefit of AIvailable",
      "why would I need AIvailable", "what are the benefits of AIvailable"],
     "AIvailable makes old and small GPUs useful again."),
    (["what is a GPU", "what are GPUs", "explain GPU", "what does a GPU do", "what does GPU mean", "tell me about GPUs",
      "explain what a GPU is", "what is a graphics card"], "A GPU is a chip that does many simple sums at the same time."),
    (["what is VRAM", "explain VRAM", "what does VRAM mean", "tell me about VRAM", "what is VRAM for", "explain what VRAM is",
      "what is the memory of a GPU"], "VRAM is the memory of a GPU. A model must fit into it."),
    (["what is a node", "what are nodes", "explain node", "what does a node do", "tell me about nodes", "what does node mean",
      "explain what a node is"], "A node is a machine with GPUs that runs models."),
    (["what is a replica", "what are replicas", "explain replica", "what is a replica for", "tell me about replicas",
      "what does replica mean", "why are there replicas", "why do I need two replicas", "explain what a replica is"],
     "A replica is one running copy of a model. When one is lost, another goes on."),
    (["what is the gateway", "what does the gateway do", "explain the gateway", "tell me about the gateway",
      "what is the gateway for", "what is a gateway"], "The gateway takes your requests and sends them to a replica."),
    (["what is the controller", "what does the controller do", "explain the controller", "tell me about the controller",
      "what is the controller for", "what is a controller"], "The controller decides which model runs on which GPU."),
    (["what is an agent", "what does the agent do", "explain the agent", "tell me about the agent", "what is the node agent",
      "what is the agent for"], "The agent starts and watches the engines on its node."),
    (["what is the engine", "what does the engine do", "which engine is used", "what is an engine", "explain the engine",
      "which engine does AIvailable use"], "The engine is llama.cpp. It computes the answers of a model."),
    (["what is a token", "what are tokens", "explain token", "what does token mean", "tell me about tokens"],
     "A token is a small piece of text, often a word."),
    (["what is a model", "what is a language model", "explain language model", "what are language models", "what is an LLM",
      "tell me about language models"], "A language model is a program that guesses the next word."),
    (["what is a cluster", "what are clusters", "explain cluster", "what does cluster mean"],
     "A cluster is a group of machines that work together."),
    (["what happens when a node fails", "what happens if a node dies", "what if a machine fails", "what happens when a node is lost",
      "what if a node goes away", "what happens if a machine dies", "can a node fail"],
     "Then other replicas answer, and its models are placed on other nodes."),
    (["what happens when the controller fails", "what if the controller dies", "what happens if the controller is lost",
      "what happens without the controller"], "Then the gateway goes on with the routes that it knows."),
    (["do models run on the CPU", "does anything run on the CPU", "does AIvailable use the CPU", "can a model run on the CPU",
      "is the CPU used for models"], "No, models run on GPUs only, and that is proved before they serve."),
    (["can I use old GPUs", "do old GPUs work", "can I use an old graphics card", "does AIvailable run on old GPUs",
      "does my old GPU work", "are old GPUs useful"], "Yes, old GPUs are welcome, as long as the model fits."),
    (["can I mix GPUs", "can I mix NVIDIA and AMD", "do different GPUs work together", "does AMD work", "do AMD cards work",
      "can I use GPUs of different makers", "does NVIDIA work"], "Yes, GPUs of different makers can work side by side."),
    (["how do I start a model", "how do I run a model", "how can I add a model", "how do I deploy a model",
      "how can I start another model", "which command starts a model"], "Use the command aiv up with the name of the model."),
    (["how do I see what runs", "what is running", "how do I list the replicas", "which models are running",
      "how can I see the replicas"], "Use the command aiv ps to see what runs where."),
    (["how do I list the models", "which models are there", "how can I see all models", "show me the models"],
     "Use the command aiv ls to see the models."),
    (["how do I start AIvailable", "how do I start the cluster", "how can I try AIvailable", "how do I run AIvailable",
      "how do I begin"], "Type make run, and wait until it says ready."),
    (["how much VRAM do I need", "how much memory does a model need", "how large is a model", "will my model fit"],
     "That depends on the model. The command aiv estimate tells you."),
    (["is AIvailable free", "what does AIvailable cost", "is AIvailable open source", "which licence does AIvailable have",
      "do I have to pay for AIvailable"], "AIvailable is free. Its licence is Apache 2.0."),
    (["is my data safe", "where does my data go", "are my questions private", "does my data leave the machine"],
     "Your questions stay on your own machines."),
    (["what is a software GPU", "what are software GPUs", "explain software GPU", "is this a real GPU"],
     "A software GPU acts like a GPU, but a CPU does the work. It is for tests."),
    # the world
    (["how many days are in a week", "how many days does a week have"], "A week has 7 days."),
    (["how many months are in a year", "how many months does a year have"], "A year has 12 months."),
    (["how many hours are in a day", "how many hours does a day have"], "A day has 24 hours."),
    (["how many minutes are in an hour", "how many minutes does an hour have"], "An hour has 60 minutes."),
    (["how many seconds are in a minute", "how many seconds does a minute have"], "A minute has 60 seconds."),
    (["how many fingers does a hand have", "how many fingers are on a hand"], "A hand has 5 fingers."),
    (["how many wheels does a car have", "how many wheels are on a car"], "A car has 4 wheels."),
    (["how many wheels does a bicycle have", "how many wheels are on a bicycle"], "A bicycle has 2 wheels."),
    (["what is the sun", "what is the sun made of"], "The sun is a star. It gives us light and heat."),
    (["what is the moon", "what goes around the earth"], "The moon is a ball of rock that goes around the earth."),
    (["what is water", "what is water for"], "Water is what we drink, and what fills the sea."),
    (["what is snow", "where does snow come from"], "Snow is frozen water that falls from the sky."),
    (["what is ice", "what is ice made of"], "Ice is frozen water."),
    (["what is rain", "where does rain come from"], "Rain is water that falls from the clouds."),
    (["what is a book", "what is a book for"], "A book is something that you can read."),
    (["what is a car", "what is a car for"], "A car is a machine that takes people from place to place."),
    (["what is a computer", "what is a computer for"], "A computer is a machine that works with numbers and text."),
    (["what is bread made of", "how is bread made"], "Bread is made of flour and water."),
    (["what is cheese made of", "how is cheese made"], "Cheese is made of milk."),
    (["where does the sun rise", "where does the sun come up"], "The sun rises in the east."),
    (["where does the sun set", "where does the sun go down"], "The sun sets in the west."),
    (["which planet do we live on", "on which planet do we live"], "We live on the planet Earth."),
]

# Asked about what it cannot know: topics and ways to ask.
UNKNOWN_TOPICS = """quantum physics|the stock market|Shakespeare|football|the president|my dog's name|the Roman Empire|chess|
black holes|Python|JavaScript|C++|cooking|pasta|the best phone|Bitcoin|climate change|the French Revolution|DNA|
philosophy|Kubernetes|Docker|Linux|the meaning of life|a sorting algorithm|relativity|Napoleon|Einstein|Mozart|opera|
the last election|World War Two|dinosaurs|volcanoes|photosynthesis|vitamins|the internet|yoga|tax law|medicine|
gravity|electricity|neural networks|transformers|attention|databases|SQL|the human brain|my future|lottery numbers|
tennis|basketball|Picasso|art|the pyramids|Vikings|pirates|robots|space travel|rockets|Brazil's economy|inflation|
poetry|grammar|Latin|Chinese|a recipe|pizza|sushi|coffee|wine|gardens|fashion|movies|Hollywood|Star Wars|video games|
history|geography|biology|chemistry|algebra|geometry|calculus|prime numbers|statistics|music theory|guitars|pianos""" \
    .replace("\n", "").split("|")
UNKNOWN_ASKS = ["tell me about {}", "explain {}", "what is {}", "what do you know about {}", "how does {} work",
                "write an essay about {}", "who invented {}", "what do you think about {}", "can you explain {} to me",
                "give me a summary of {}", "why is {} important", "teach me {}", "write a program about {}",
                "when was {}", "what is the history of {}", "translate {}", "what is the best book about {}",
                "how do I learn {}", "is {} good", "write code for {}", "what happened in {}", "who is the king of {}"]
UNKNOWN_ANSWER = "I do not know that. I am only a very small demo model."

# ---- stories: character traits, places, what is found, what goes wrong
TRAITS = "brave little happy clever kind old young quiet funny lazy hungry curious".split()
HEROES = "dog cat horse lion bear frog owl mouse bee wolf fox rabbit elephant duck monkey bird robot dragon turtle goat".split()
PLACES = ["the forest", "the city", "the sea", "the mountain", "the river", "the garden", "the farm", "the lake"]
FINDS = ["a red ball", "an old map", "a golden key", "a small box", "a shiny stone", "a blue boat", "a warm hat",
         "a silver bell"]
FRIENDS = "dog cat horse bear frog owl mouse fox rabbit duck".split()
