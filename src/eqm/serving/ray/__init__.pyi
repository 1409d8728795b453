from .cluster import Count as Count
from .models import ReplicatedModels as ReplicatedModels
